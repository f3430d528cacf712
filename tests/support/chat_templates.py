"""Chat templates that refuse some message lists, by the same rules as Mistral's."""

# Only user and assistant turns, alternating.
STRICT_TEMPLATE = r"""
{{- bos_token -}}
{%- for turn in messages -%}
  {%- if turn.role not in ['user', 'assistant'] -%}
    {{- raise_exception('This model takes user and assistant turns only, not "' + turn.role + '".') -}}
  {%- endif -%}
  {%- if (loop.index0 % 2 == 0) != (turn.role == 'user') -%}
    {{- raise_exception('Turns must alternate: user, assistant, user, and so on.') -}}
  {%- endif -%}
  {%- if turn.role == 'user' -%}
    {{- '[INST] ' + turn.content + ' [/INST]' -}}
  {%- else -%}
    {{- ' ' + turn.content + eos_token -}}
  {%- endif -%}
{%- endfor -%}
"""
STRICT_ROLE_ERROR = 'This model takes user and assistant turns only, not "tool".'
STRICT_TURN_ERROR = "Turns must alternate: user, assistant, user, and so on."

# One system message at the beginning. Tool results and messages with tool calls do not count as turns.
TOOL_TEMPLATE = r"""
{{- bos_token -}}
{%- set turns = messages -%}
{%- if messages[0].role == 'system' -%}
  {%- set lead = messages[0].content -%}
  {%- set turns = messages[1:] -%}
{%- endif -%}
{%- set count = namespace(n=0) -%}
{%- for turn in turns -%}
  {%- if not (turn.role == 'tool' or (turn.tool_calls is defined and turn.tool_calls)) -%}
    {%- if (count.n % 2 == 0) != (turn.role == 'user') -%}
      {{- raise_exception('After one system message, turns must alternate: user, assistant, user, and so on.') -}}
    {%- endif -%}
    {%- set count.n = count.n + 1 -%}
  {%- endif -%}
{%- endfor -%}
{%- if tools -%}
  {{- '[TOOLS]' + (tools | tojson) + '[/TOOLS]' -}}
{%- endif -%}
{%- for turn in turns -%}
  {%- if turn.role == 'user' -%}
    {{- '[INST] ' -}}
    {%- if loop.first and lead is defined -%}{{- lead + '\n\n' -}}{%- endif -%}
    {{- turn.content + ' [/INST]' -}}
  {%- elif turn.role == 'tool' -%}
    {{- '[RESULT]' + turn.content + '[/RESULT]' -}}
  {%- elif turn.tool_calls is defined and turn.tool_calls -%}
    {{- '[CALLS]' -}}
    {%- for call in turn.tool_calls -%}{{- call.function | tojson -}}{%- endfor -%}
    {{- eos_token -}}
  {%- elif turn.role == 'assistant' -%}
    {{- ' ' + turn.content + eos_token -}}
  {%- else -%}
    {{- raise_exception('Only one system message is taken, at the beginning.') -}}
  {%- endif -%}
{%- endfor -%}
"""
