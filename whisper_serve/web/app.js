// The page at `/`: puts its parts together.

import { FilePanel } from "./file-panel.js";
import { LivePanel } from "./live-panel.js";
import { watchService } from "./service.js";
import { Settings } from "./settings.js";
import { Tabs } from "./tabs.js";

// Relative to the page, so that the service can live behind any path of a proxy.
const at = (path) => new URL(path, document.baseURI);

function streamUrl() {
  const url = at("stream");
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url;
}

const settings = new Settings(document.getElementById("settings"));
const tabs = new Tabs(document.querySelector("[role=tablist]"), (name) => settings.show(name));
new LivePanel({ url: streamUrl(), settings });
new FilePanel({ url: at("transcribe"), settings, onDrop: () => tabs.show("file") });
watchService(at("health"), document.getElementById("service"));
