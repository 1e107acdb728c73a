// What a node has to say about the graph that was queued: amber, under its widgets, until the next prompt is queued.
import { addPassiveWidget, growToFit, removePassiveWidget } from "./passive_widget.js";

const MARGIN = 20; // of the host around an element on the canvas, both sides together
const AMBER = "display:flow-root;box-sizing:border-box;padding:5px 8px;border-radius:4px;border-left:4px solid #b36b00;" +
  "background:#f5b942;color:#2a1a00;font:12px/1.35 sans-serif;overflow-wrap:anywhere;text-align:left";

const BETWEEN = "margin-top:5px;padding-top:5px;border-top:1px solid #b36b0080";
// The node has grown over what lies below it. Hosts that draw nodes as HTML stack them by this property alone.
const IN_FRONT = "[data-node-id]:has(.idea-notice) { z-index: 1000 !important; }";

const shown = new Map(); // node → {widget, box, lines, height, before}; lines: sentence → {line, prompt}

/**
 * Say one more sentence on a node; every sentence is said once.
 * @param {string | null | undefined} prompt the id of the prompt that ran into it; none for what the graph itself told
 */
export function showNotice(node, text, prompt, prepare = () => {}) {
  const notice = shown.get(node) ?? make(node, prepare);
  const said = notice.lines.get(text);
  if (said) {
    said.prompt = prompt;
    return;
  }
  const line = document.createElement("div");
  line.textContent = text;
  notice.lines.set(text, { line, prompt });
  draw(node, notice);
}

/** Take every sentence off the nodes, or those that are not to be kept, and give back the room they took. */
export function clearNotices(keep = () => false) {
  for (const [node, notice] of shown) {
    const { lines, widget, before, height } = notice;
    for (const [text, { prompt }] of lines) if (!keep(prompt)) lines.delete(text);
    if (lines.size) {
      draw(node, notice);
      continue;
    }
    shown.delete(node);
    const without = node.size[1] - height(); // with what the artist has added to its size meanwhile
    removePassiveWidget(node, widget);
    node.setSize([node.size[0], Math.max(before, without)]);
    node.setDirtyCanvas(true, true);
  }
}

function draw(node, { box, lines }) {
  box.replaceChildren(...[...lines.values()].map(({ line }) => line));
  [...box.children].forEach((line, i) => (line.style.cssText = i ? BETWEEN : ""));
  growToFit(node);
}

function make(node, prepare) {
  if (!document.getElementById("idea-notice-style")) {
    const style = Object.assign(document.createElement("style"), { id: "idea-notice-style", textContent: IN_FRONT });
    document.head.append(style);
  }
  // The host sizes the element it is given; one that draws nodes as HTML takes the height of what is in it.
  const element = document.createElement("div");
  const box = document.createElement("div");
  box.style.cssText = AMBER;
  box.className = "idea-notice";
  box.setAttribute("role", "status");
  element.append(box);
  const height = () => heightOf(box, node.size[0] - MARGIN) + MARGIN;
  const notice = { box, height, lines: new Map(), before: node.size[1] };
  shown.set(node, notice);
  notice.widget = addPassiveWidget(node, "notice", element, height, { hideOnZoom: false });
  prepare(element);
  return notice;
}

const measured = { key: "", height: 0 };

/** The height a box takes at this width, whether it is on the page already or not. */
function heightOf(box, width) {
  const key = `${Math.round(width)} ${box.textContent}`;
  if (measured.key !== key) {
    const copy = box.cloneNode(true);
    copy.style.cssText += `;position:absolute;visibility:hidden;width:${width}px`;
    document.body.append(copy);
    Object.assign(measured, { key, height: copy.offsetHeight });
    copy.remove();
  }
  return measured.height;
}
