// The interface by Swagger UI, from the document of this server, with the key of this tab.
import {key} from "./service.js";
import {listenForTheme} from "./theme.js";

listenForTheme(document.getElementById("theme"), (theme) =>
  document.documentElement.classList.toggle("dark-mode", theme === "dark"));

const shown = globalThis.SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  presets: [globalThis.SwaggerUIBundle.presets.apis],
  onComplete: () => key() && shown.preauthorizeApiKey("api_key", key()),
});
