// What a node has to say about the graph that was queued: amber, under its widgets, until the next prompt is queued.
import { addPassiveWidget, growToFit, removePassiveWidget } from "./passive_widget.js";

const MARGIN = 20; // of the host around an element on the canvas, both sides together
const AMBER = "display:flow-root;box-sizing:border-box;padding:5px 8px;border-radius:4px;border-left:4px solid #b36b00;" +
  "background:#f5b942;color:#2a1a00;font:12px/1.35 sans-serif;overflow-wrap:anywhere;text-align:left";

// The node has grown over what lies below it. Hosts that draw nodes as HTML stack them by this property alone.
const IN_FRONT = "[data-node-id]:has(.idea-notice) { z-index: 1000 !important; }";

const shown = new Map(); // node → {widget, box, sentences, height, before}

/** Say one more sentence on a node; every sentence is said once. */
export function showNotice(node, text, prepare = () => {}) {
  const notice = shown.get(node) ?? make(node, prepare);
  if (notice.sentences.includes(text)) return;
  notice.sentences.push(text);
  const line = document.createElement("div");
  line.textContent = text;
  if (notice.sentences.length > 1) line.style.cssText = "margin-top:5px;padding-top:5px;border-top:1px solid #b36b0080";
  notice.box.append(line);
  growToFit(node);
}

/** Take every sentence off the nodes, and give back the room they took. */
export function clearNotices() {
  for (const [node, { widget, before, height }] of shown) {
    const without = node.size[1] - height(); // with what the artist has added to its size meanwhile
    removePassiveWidget(node, widget);
    node.setSize([node.size[0], Math.max(before, without)]);
    node.setDirtyCanvas(true, true);
  }
  shown.clear();
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
  const notice = { box, height, sentences: [], before: node.size[1] };
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
