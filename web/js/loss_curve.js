// The losses of one training, put together from messages.

const SMOOTHING = 0.1; // weight of a new value in the running mean, as in the chart output of the node
const ENOUGH_TO_CLIP = 50;

export class LossCurve {
  constructor() {
    this.steps = 0;
    this.losses = []; // losses[i] belongs to step i + 1; holes are steps this page has not heard of
  }

  /** Take a message {step, steps, loss, losses}; `losses` ends with the loss of `step`. A null is a loss that is not finite. */
  add({ step, steps, loss, losses }) {
    if (steps !== this.steps) this.losses = [];
    this.steps = steps;
    const recent = losses?.length ? losses : [loss];
    const first = Math.max(0, step - recent.length);
    this.losses.length = step; // a second training on the same node starts again at step 1
    for (let i = 0; first + i < step; i++) this.losses[first + i] = recent[recent.length - (step - first) + i];
  }

  get step() {
    return this.losses.length;
  }

  /** Every finite loss as [step, loss], in order. */
  points() {
    const points = [];
    this.losses.forEach((loss, i) => Number.isFinite(loss) && points.push([i + 1, loss]));
    return points;
  }

  /** The exponential running mean as [step, mean], corrected for its start. */
  mean() {
    let mean = 0;
    let weight = 0;
    return this.points().map(([step, loss]) => {
      mean = (1 - SMOOTHING) * mean + SMOOTHING * loss;
      weight = (1 - SMOOTHING) * weight + SMOOTHING;
      return [step, mean / weight];
    });
  }

  /** [low, high] of what is worth drawing: a few outliers of a long training do not flatten the rest. */
  range() {
    const sorted = this.points().map(([, loss]) => loss).sort((a, b) => a - b);
    if (!sorted.length) return [0, 1];
    const last = sorted.length - 1;
    const [low, high] = [sorted[0], sorted[sorted.length > ENOUGH_TO_CLIP ? Math.floor(last * 0.98) : last]];
    return high > low ? [low, high] : [low - 0.5 * (Math.abs(low) || 1), low + 0.5 * (Math.abs(low) || 1)];
  }
}
