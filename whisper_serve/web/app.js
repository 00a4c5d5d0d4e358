// The page at `/`: puts its parts together.

import { Access } from "./access.js";
import { FilePanel } from "./file-panel.js";
import { KeyForm } from "./key-form.js";
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
const form = new KeyForm(document.getElementById("key-form"), document.getElementById("forget"));
const access = new Access({ check: at("v1/models"), tokens: at("v1/tokens"), form });
new LivePanel({ url: streamUrl(), settings, access });
new FilePanel({ url: at("transcribe"), settings, access, onDrop: () => tabs.show("file") });
watchService(at("health"), document.getElementById("service"));
