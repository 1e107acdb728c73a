// ID-EA in the browser: the live training strip, what nodes say when they have run, and what is wrong with a queued graph.
// The host serves this file at /extensions/<folder>/js/idea.js.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { LiveChart } from "./live_chart.js";
import { clearNotices, showNotice } from "./notices.js";
import { addPassiveWidget, dropPassiveValues, growToFit } from "./passive_widget.js";
import { wordsOf } from "./words.js";

const TRAINERS = new Set(["IDEA_TrainIDEA", "IDEA_RefitIdentity"]);
const SEED_STAYS = new Set([...TRAINERS, "IDEA_CheckModel"]);
const CHART_HEIGHT = 150; // units of the canvas
const PREVIEW_HEIGHT = 230; // with a picture in it
const TALLEST_CHART = 320; // on a node that the artist made taller
const LINE_HEIGHT = 15;
const MARGIN = 20; // of the host around an element on the canvas, both sides together

const charts = new WeakMap(); // node → LiveChart
const texts = new WeakMap(); // node → {area, lines}

/** The node a server message speaks of: 5, '5', or '12:5' for node 5 inside the subgraph of node 12. */
function findNode(id) {
  let graph = app.rootGraph ?? app.graph?.rootGraph ?? app.graph;
  let node;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part));
    graph = node?.subgraph;
  }
  return node;
}

function isTrainer(node) {
  return TRAINERS.has(node?.comfyClass ?? node?.type);
}

function findTrainer(id) {
  const node = id === undefined || id === null ? undefined : findNode(id);
  return isTrainer(node) ? node : undefined;
}

/** The words of the language that the page is shown in; hosts of 2024 have no such setting and speak English. */
function words() {
  const setting = app.extensionManager?.setting?.get?.("Comfy.Locale") ?? app.ui?.settings?.getSettingValue?.("Comfy.Locale");
  return wordsOf(setting);
}

/** The strip of a trainer, made at its first message. */
function chartOf(node, id) {
  if (!charts.has(node)) {
    const chart = new LiveChart(() => api.fetchApi("/idea/training/stop", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ node: id }),
    }), words);
    charts.set(node, chart);
    const height = () => (chart.hasPreview ? PREVIEW_HEIGHT : CHART_HEIGHT);
    addPassiveWidget(node, "training", chart.element, height, { hideOnZoom: false, getMaxHeight: () => TALLEST_CHART });
    handOn(chart.element);
  }
  return charts.get(node);
}

function keepRoom(chart) {
  chart.atLeast((chart.hasPreview ? PREVIEW_HEIGHT : CHART_HEIGHT) - MARGIN);
}

/** The wheel zooms and the middle button moves the canvas, as everywhere else on a node. */
function handOn(element, scrolls = () => false) {
  element.addEventListener("wheel", (event) => {
    if (scrolls() && !event.ctrlKey) return;
    event.preventDefault();
    event.stopPropagation(); // nobody further out zooms a second time
    app.canvas.processMouseWheel(event);
  }, { passive: false });
  const middle = (event) => (event.type === "pointermove" ? (event.buttons & 4) === 4 : event.button === 1);
  for (const [kind, method] of [["pointerdown", "processMouseDown"], ["pointermove", "processMouseMove"], ["pointerup", "processMouseUp"]]) {
    element.addEventListener(kind, (event) => middle(event) && app.canvas[method](event));
  }
}

function showProgress({ detail }) {
  const node = findTrainer(detail?.node);
  if (!node) return; // another workflow is on the canvas
  const chart = chartOf(node, detail.node);
  chart.add(detail);
  keepRoom(chart);
  chart.fit(app.canvas.ds.scale); // hosts that draw nodes as HTML do not call onDrawForeground
  node.setDirtyCanvas(true, false);
}

function showPreview({ detail }) {
  const node = findTrainer(detail?.node);
  if (!node) return;
  const chart = chartOf(node, detail.node);
  const first = !chart.hasPreview;
  chart.preview(detail);
  keepRoom(chart);
  if (first) growToFit(node);
}

/** What this page missed: it was opened, or the workflow loaded, while a training runs. */
async function catchUp() {
  let running = [];
  try {
    const answer = await api.fetchApi("/idea/training");
    if (answer.ok) running = await answer.json();
  } catch {
    return; // a server that cannot be asked now sends its messages later all the same
  }
  for (const { progress, preview } of running) {
    showProgress({ detail: progress });
    if (preview) showPreview({ detail: preview });
  }
}

/** A sentence for a node, or for none: then a new prompt was queued, and what was said of the last one no longer holds. */
function hear({ detail }) {
  if (detail?.node === null) return clearNotices();
  const node = findNode(detail?.node);
  if (!node || (detail.type && detail.type !== (node.comfyClass ?? node.type))) return; // another workflow is on the canvas
  showNotice(node, detail.text, detail.prompt_id, handOn);
  app.canvas.bringToFront(node); // it has grown over what lies below it
}

function showStop({ detail }, why) {
  const node = findTrainer(detail?.node_id);
  if (node) charts.get(node)?.stop(why);
}

function showText(node, text) {
  if (!texts.has(node)) {
    const area = document.createElement("textarea");
    area.className = "comfy-multiline-input";
    area.readOnly = true;
    const shown = { area, lines: 2 };
    texts.set(node, shown);
    addPassiveWidget(node, "result", area, () => shown.lines * LINE_HEIGHT + 30);
    handOn(area, () => area.scrollHeight > area.clientHeight);
  }
  const shown = texts.get(node);
  shown.area.value = text;
  shown.lines = Math.min(8, Math.max(2, text.split("\n").length));
  shown.area.rows = shown.lines; // for hosts that draw nodes as HTML
  growToFit(node);
}

/** Run `more` after a method of a node class, whoever defined that method before. */
function after(prototype, method, more) {
  const before = prototype[method];
  prototype[method] = function (...args) {
    const result = before?.apply(this, args);
    more(this, ...args);
    return result;
  };
}

app.registerExtension({
  name: "ID-EA",
  setup() {
    api.addEventListener("idea.progress", showProgress);
    api.addEventListener("idea.preview", showPreview);
    api.addEventListener("idea.notice", hear);
    // What an earlier prompt ran into may be mended in this one; what its graph told was said when it was queued.
    api.addEventListener("execution_start", ({ detail }) => clearNotices((prompt) => !prompt || prompt === detail?.prompt_id));
    api.addEventListener("execution_interrupted", (event) => showStop(event, "cancelled"));
    api.addEventListener("execution_error", (event) => showStop(event, "failed"));
  },
  afterConfigureGraph: catchUp,
  nodeCreated(node) {
    // A new seed at every queue would train the person anew every time; a workflow that says otherwise is read after this.
    const control = SEED_STAYS.has(node.comfyClass ?? node.type) && node.widgets?.find((widget) => widget.name === "control_after_generate");
    if (control) control.value = "fixed";
  },
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith("IDEA_")) return;
    after(nodeType.prototype, "onExecuted", (node, output) => output?.text && showText(node, [output.text].flat().join("\n")));
    after(nodeType.prototype, "onSerialize", dropPassiveValues);
    if (TRAINERS.has(nodeData.name)) after(nodeType.prototype, "onDrawForeground", (node) => charts.get(node)?.fit(app.canvas.ds.scale));
  },
});
