// What programs do with Vercel's AI SDK (npm "ai"): a stream, an object within a schema, a round trip through a tool.
// Called with the name of a model (see models.mjs, the snippet of docs/clients.md) and what to do; prints JSON.
import { generateText, generateObject, isStepCount, streamText, tool } from "ai";
import { z } from "zod";
import { models } from "./models.mjs";

const model = models[process.argv[2]];
const limits = { maxOutputTokens: 60, temperature: 0, maxRetries: 0 };

async function stream() {
  const result = streamText({ model, ...limits, system: "Answer in one sentence.", prompt: "What is the capital of France?" });
  const pieces = [];
  for await (const piece of result.textStream) pieces.push(piece);
  const usage = await result.usage;
  return { pieces, finishReason: await result.finishReason, usage: [usage.inputTokens, usage.outputTokens] };
}

async function object() {
  const schema = z.object({ city: z.enum(["Paris", "Rome"]), people: z.number().int().min(0).max(9) });
  const result = await generateObject({ model, ...limits, schema, prompt: "Describe a city." });
  return { object: result.object };
}

async function tools() {
  const weather = tool({
    description: "The weather in a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `It rains in ${city}.`,
  });
  const result = await generateText({
    model, ...limits, tools: { weather }, stopWhen: isStepCount(3), prompt: "How is the weather in Oslo?",
  });
  return { text: result.text, steps: result.steps.length, calls: result.steps.flatMap((step) => step.toolCalls.map((call) => call.input)) };
}

const actions = { stream, object, tools };
console.log(JSON.stringify(await actions[process.argv[3]]()));
