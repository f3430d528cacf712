// A file of its own: the page's content security policy lets no script in that stands in the page.
window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  filter: true,
  // The validator is a service on the internet.
  validatorUrl: null,
});
