// A widget that only shows something. It is made when there is something to show, and leaves no trace in a workflow.

const passive = new WeakSet();

/**
 * Put `element` under the other widgets of `node`.
 * @param {() => number} height smallest height in units of the canvas
 * @param {object} options more options of the host's addDOMWidget
 */
export function addPassiveWidget(node, name, element, height, options = {}) {
  // Two switches: widget.options.serialize keeps it out of the prompt, widget.serialize out of the workflow.
  const widget = node.addDOMWidget(name, `idea_${name}`, element, { serialize: false, getMinHeight: height, ...options });
  widget.serialize = false;
  passive.add(widget);
  growToFit(node);
  return widget;
}

/** Take such a widget off its node again. */
export function removePassiveWidget(node, widget) {
  const place = node.widgets?.indexOf(widget) ?? -1;
  if (place >= 0) node.widgets.splice(place, 1);
  widget.onRemove?.();
  widget.element?.remove();
}

/** Give a node the room its widgets ask for; never less than it has. */
export function growToFit(node) {
  const [width, height] = node.computeSize();
  // Twice: hosts of 2024 first make the room and only then, when there is enough, give it to the widgets.
  for (let i = 0; i < 2; i++) node.setSize([Math.max(width, node.size[0]), Math.max(height, node.size[1])]);
  node.setDirtyCanvas(true, true);
}

/** For hosts of 2024, which write a value for every widget: ours stand last, so nothing shifts when theirs are left out. */
export function dropPassiveValues(node, serialized) {
  const values = serialized.widgets_values;
  if (!Array.isArray(values)) return;
  while (values.length && passive.has(node.widgets?.[values.length - 1])) values.pop();
}
