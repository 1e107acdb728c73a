// The live training strip: a line of text over the loss points and their running mean.
import { LossCurve } from "./loss_curve.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 1000; // of the drawing's own units; it is stretched to the node
const HEIGHT = 100;
const MARGIN = 6;
const READABLE = 11; // smallest height of letters on the screen, in pixels
const LARGEST = 21; // in units of the canvas: about READABLE at 50 % zoom
const LOSS_UP_TO = 15; // larger letters leave no room for the number
const MANY = 150; // points from which on they are drawn smaller

/** '45 s left', '3 min left', '1 h 05 min left'. */
export function remainingText(seconds) {
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 59.5) return `${Math.max(0, Math.round(seconds))} s left`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min left` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min left`;
}

export class LiveChart {
  constructor() {
    this.curve = new LossCurve();
    // The host sets style.display of the element it is given, so the layout lives one level below.
    this.element = block("div", "");
    this.element.setAttribute("role", "img");
    // Colours come from the host's theme, so the strip follows when the artist changes it.
    const strip = block("div", "display:flex;flex-direction:column;box-sizing:border-box;height:100%;padding:4px 6px;border-radius:4px;" +
      "overflow:hidden;font-family:sans-serif;background:var(--comfy-input-bg,#222);color:var(--input-text,#ddd)");
    this.labels = block("div", "display:flex;flex-wrap:wrap;justify-content:space-between;column-gap:0.8em;line-height:1.25;white-space:nowrap");
    this.progress = block("span", "font-weight:600");
    this.loss = block("span", "");
    this.time = block("span", "");
    this.labels.append(this.progress, this.loss, this.time);
    const drawing = document.createElementNS(SVG, "svg");
    drawing.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    drawing.setAttribute("preserveAspectRatio", "none");
    drawing.style.cssText = "flex:1 1 0;min-height:0;width:100%;display:block";
    this.points = stroke("currentColor", 4, 0.45);
    this.mean = stroke("#3d8bfd", 2.5, 1); // a blue that stands out on dark and on light
    drawing.append(this.points, this.mean);
    strip.append(this.labels, drawing);
    this.element.append(strip);
    this.fit(1);
  }

  /** Show one `idea.progress` message. */
  add(message) {
    this.curve.add(message);
    const { step, steps } = this.curve;
    const mean = this.curve.mean().at(-1)?.[1];
    this.progress.textContent = `step ${step}/${steps}`;
    this.loss.textContent = mean === undefined ? "loss not finite" : `loss ${mean.toPrecision(3)}`;
    this.time.textContent = step >= steps ? "done" : remainingText(message.remaining);
    this.#draw();
  }

  /** Training ended early. */
  stop(text) {
    if (this.curve.step < this.curve.steps) this.time.textContent = text;
  }

  /** Keep the letters readable at this zoom of the canvas. */
  fit(scale) {
    const size = Math.min(LARGEST, Math.max(12, READABLE / scale));
    if (size === this.size) return;
    this.size = size;
    this.labels.style.fontSize = `${size}px`;
    this.loss.style.display = size > LOSS_UP_TO ? "none" : "";
  }

  #draw() {
    const [low, high] = this.curve.range();
    const place = ([step, loss]) => {
      const x = MARGIN + ((WIDTH - 2 * MARGIN) * (step - 1)) / Math.max(1, this.curve.steps - 1);
      const y = HEIGHT - MARGIN - ((HEIGHT - 2 * MARGIN) * (loss - low)) / (high - low);
      return `${x.toFixed(1)} ${Math.min(HEIGHT - MARGIN, Math.max(MARGIN, y)).toFixed(1)}`;
    };
    const points = this.curve.points();
    this.points.setAttribute("stroke-width", points.length > MANY ? 2.5 : 4);
    this.points.setAttribute("d", points.map((point) => `M${place(point)}h0`).join("")); // a round cap makes each a dot
    this.mean.setAttribute("d", this.curve.mean().map((point, i) => (i ? "L" : "M") + place(point)).join(""));
    this.element.setAttribute("aria-label", `Training: ${[this.progress, this.loss, this.time].map((label) => label.textContent).join(", ")}`);
  }
}

function block(tag, style) {
  const element = document.createElement(tag);
  element.style.cssText = style;
  return element;
}

function stroke(colour, width, opacity) {
  const path = document.createElementNS(SVG, "path");
  const attributes = {
    fill: "none", stroke: colour, "stroke-width": width, "stroke-opacity": opacity, "stroke-linecap": "round", "stroke-linejoin": "round",
    "vector-effect": "non-scaling-stroke",
  };
  for (const [name, value] of Object.entries(attributes)) path.setAttribute(name, value);
  return path;
}
