// The live training strip: text and the Stop button over the loss points, their running mean and the likeness, beside the newest preview.
import { LossCurve } from "./loss_curve.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 1000; // of the drawing's own units; it is stretched to the node
const HEIGHT = 100;
const MARGIN = 6;
const READABLE = 11; // smallest height of letters on the screen, in pixels
const LARGEST = 21; // in units of the canvas: about READABLE at 50 % zoom
const LOSS_UP_TO = 15; // larger letters leave no room for the number
const MANY = 150; // points from which on they are drawn smaller
const BLUE = "#3d8bfd"; // these two stand out on dark and on light
const ORANGE = "#e07b1a";

/** '45 s left', '3 min left', '1 h 05 min left'; `say` is one of words.js. */
export function remainingText(seconds, say) {
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 59.5) return say("seconds", { seconds: Math.max(0, Math.round(seconds)) });
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? say("minutes", { minutes }) : say("hours", { hours: Math.floor(minutes / 60), minutes: String(minutes % 60).padStart(2, "0") });
}

export class LiveChart {
  /**
   * @param {() => void} onStop called when Stop is pressed
   * @param {() => (name: string, values?: object) => string} words those of words.js, in the language that the page has now
   */
  constructor(onStop, words) {
    this.words = words;
    this.curve = new LossCurve();
    this.likenesses = []; // [step, likeness] in order
    this.running = false;
    // The host sets style.display of the element it is given, so the layout lives one level below.
    this.element = block("div", "");
    // Colours come from the host's theme, so the strip follows when the artist changes it.
    const strip = block("div", "display:flex;flex-direction:column;box-sizing:border-box;height:100%;padding:4px 6px;border-radius:4px;" +
      "overflow:hidden;font-family:sans-serif;background:var(--comfy-input-bg,#222);color:var(--input-text,#ddd)");
    this.labels = block("div", "display:flex;flex-wrap:wrap;justify-content:space-between;column-gap:0.8em;line-height:1.25;white-space:nowrap");
    this.progress = block("span", "font-weight:600");
    this.loss = block("span", "");
    this.time = block("span", "");
    this.labels.append(this.progress, this.loss, this.time);
    this.second = block("div", "display:flex;align-items:center;justify-content:space-between;column-gap:0.8em;line-height:1.25;white-space:nowrap");
    this.likeness = block("span", "overflow:hidden;text-overflow:ellipsis");
    this.stopButton = block("button", "margin-left:auto;padding:0 0.7em;font:inherit;line-height:1.4;cursor:pointer;border-radius:4px;" +
      "border:1px solid var(--border-color,#666);color:inherit;background:var(--comfy-menu-bg,#353535);pointer-events:auto");
    this.stopButton.type = "button";
    this.stopButton.addEventListener("click", () => {
      this.stopButton.disabled = true;
      this.time.textContent = this.words()("stopping");
      onStop();
    });
    for (const kind of ["pointerdown", "mousedown"]) this.stopButton.addEventListener(kind, (event) => event.stopPropagation()); // not a drag of the node
    this.second.append(this.likeness, this.stopButton);
    const drawing = document.createElementNS(SVG, "svg");
    drawing.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    drawing.setAttribute("preserveAspectRatio", "none");
    drawing.style.cssText = "flex:1 1 0;min-width:0;height:100%;display:block";
    drawing.setAttribute("role", "img");
    this.drawing = drawing;
    this.points = stroke("currentColor", 4, 0.45);
    this.mean = stroke(BLUE, 2.5, 1);
    this.alike = stroke(ORANGE, 2.5, 1);
    this.alikePoints = stroke(ORANGE, 6, 1);
    drawing.append(this.points, this.mean, this.alike, this.alikePoints);
    this.picture = block("img", "display:none;height:100%;max-width:50%;object-fit:contain;border-radius:3px");
    const body = block("div", "display:flex;flex:1 1 0;min-height:0;column-gap:6px");
    body.append(drawing, this.picture);
    strip.append(this.labels, this.second, body);
    this.strip = strip;
    this.element.append(strip);
    this.fit(1);
  }

  /** Show one `idea.progress` message. */
  add(message) {
    if (message.step < this.curve.step) this.#forgetPreview(); // a new training
    this.curve.add(message);
    this.likenesses = message.likenesses ?? [];
    const { step, steps } = this.curve;
    const running = (this.running = step < steps && message.state !== "stopped");
    const mean = this.curve.mean().at(-1)?.[1];
    const say = this.words();
    this.progress.textContent = say("step", { step, steps });
    this.loss.textContent = mean === undefined ? say("notFinite") : say("loss", { loss: mean.toPrecision(3) });
    const left = () => (running ? remainingText(message.remaining, say) : say("stopped"));
    if (!this.stopButton.disabled || !running) this.time.textContent = step >= steps ? say("done") : left();
    this.stopButton.textContent = say("stop");
    this.stopButton.title = say("stopTip");
    this.#showLikeness();
    this.#showStop(running);
    this.#draw();
  }

  /** Show one `idea.preview` message. */
  preview({ image, step }) {
    this.picture.src = image;
    this.picture.alt = this.picture.title = this.words()("preview", { step });
    this.picture.style.display = "block";
  }

  get hasPreview() {
    return this.picture.style.display !== "none";
  }

  /** Training ended early; `why` is a name in words.js. */
  stop(why) {
    if (this.curve.step >= this.curve.steps) return;
    this.running = false;
    this.time.textContent = this.words()(why);
    this.#showStop(false);
    this.#draw();
  }

  /** Keep the letters readable at this zoom of the canvas. */
  fit(scale) {
    const size = Math.min(LARGEST, Math.max(12, READABLE / scale));
    if (size === this.size) return;
    this.size = size;
    this.labels.style.fontSize = this.second.style.fontSize = `${size}px`;
    this.#showLikeness();
    this.loss.style.display = size > LOSS_UP_TO ? "none" : "";
  }

  /** Never lower than this, in units of the canvas: hosts that draw nodes as HTML give a widget only the room it takes. */
  atLeast(height) {
    this.strip.style.minHeight = `${height}px`;
  }

  #forgetPreview() {
    this.picture.style.display = "none";
    this.picture.removeAttribute("src");
  }

  #showStop(running) {
    if (running && this.stopButton.style.display === "none") this.stopButton.disabled = false;
    this.stopButton.style.display = running ? "" : "none";
    this.second.style.display = running || this.likenesses.length ? "flex" : "none";
  }

  #showLikeness() {
    if (!this.likenesses.length) {
      this.likeness.textContent = "";
      return;
    }
    const [best, most] = this.likenesses.reduce((a, b) => (b[1] >= a[1] ? b : a));
    const dot = block("span", `color:${ORANGE}`);
    dot.textContent = "● ";
    const values = { now: this.likenesses.at(-1)[1].toFixed(2), best: most.toFixed(2), step: best };
    this.likeness.replaceChildren(dot, this.words()(this.size > LOSS_UP_TO ? "alike" : "likeness", values));
  }

  #draw() {
    const [low, high] = this.curve.range();
    const values = this.likenesses.map(([, value]) => value);
    const [less, more] = [Math.min(0, ...values), Math.max(0.1, ...values)]; // likeness has a scale of its own, from 0 up
    const last = this.running ? this.curve.steps : this.curve.step; // nothing comes after the end: its curve fills the strip
    const place = ([step, loss], low, high) => {
      const x = MARGIN + ((WIDTH - 2 * MARGIN) * (step - 1)) / Math.max(1, last - 1);
      const y = HEIGHT - MARGIN - ((HEIGHT - 2 * MARGIN) * (loss - low)) / (high - low);
      return `${x.toFixed(1)} ${Math.min(HEIGHT - MARGIN, Math.max(MARGIN, y)).toFixed(1)}`;
    };
    const points = this.curve.points();
    this.points.setAttribute("stroke-width", points.length > MANY ? 2.5 : 4);
    this.points.setAttribute("d", points.map((point) => `M${place(point, low, high)}h0`).join("")); // a round cap makes each a dot
    this.mean.setAttribute("d", this.curve.mean().map((point, i) => (i ? "L" : "M") + place(point, low, high)).join(""));
    this.alike.setAttribute("d", this.likenesses.map((point, i) => (i ? "L" : "M") + place(point, less, more)).join(""));
    this.alikePoints.setAttribute("d", this.likenesses.map((point) => `M${place(point, less, more)}h0`).join(""));
    const said = [this.progress, this.loss, this.likeness, this.time].map((label) => label.textContent).filter(Boolean);
    this.drawing.setAttribute("aria-label", this.words()("training", { said: said.join(", ") }));
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
