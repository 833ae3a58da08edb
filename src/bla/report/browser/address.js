"use strict";
// The state of the page, which its address holds after the #: a link shows the same images, method, order and marks.

const DEFAULTS = {
  dataset: "", class: "", right: "", from: "", to: "", mapped: "", method: methods[0].name, scale: "one", sort: "", smallest: "",
  at: "", open: "", marked: "",
};

const state = { ...DEFAULTS };

const classNames = [...new Set(data.collections.flatMap((collection) => collection.classes))];

/** Whether a value of the address is one that this page knows; a link may come from a page with other data. */
const KNOWN = {
  dataset: (value) => data.collections.some((collection) => collection.name === value),
  class: (value) => classNames.includes(value),
  right: (value) => ["right", "wrong"].includes(value),
  from: (value) => /^\d+$/.test(value),
  to: (value) => /^\d+$/.test(value),
  mapped: (value) => value === "1",
  method: (value) => methods.some((method) => method.name === value),
  scale: (value) => ["one", "each"].includes(value),
  sort: (value) => ["loss", "size", "disagreement", "spread"].includes(value),
  smallest: (value) => value === "1",
  at: (value) => byId.has(value),
  open: (value) => value === "1",
  marked: (value) => value.split(",").every((id) => byId.has(id)),
};

/** Sets the state from the address, and returns a sentence about what this page does not know in it. */
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const unknown = [...given.keys()].filter((name) => !Object.hasOwn(DEFAULTS, name));
  for (const [name, value] of Object.entries(DEFAULTS)) {
    const wanted = given.get(name);
    const known = wanted === null || wanted === "" || KNOWN[name](wanted);
    state[name] = wanted === null || !known ? value : wanted;
    if (!known) unknown.push(`${name}=${wanted}`);
  }
  return unknown.length ? `This page does not know ${unknown.join(", ")}, which the link names. ` : "";
}

/** Writes what differs from the defaults to the address, without a new entry in the history. */
function writeAddress() {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(DEFAULTS)) if (state[name] !== value) given.set(name, state[name]);
  const text = given.toString();
  if (text !== location.hash.slice(1)) history.replaceState(null, "", `#${text}`);
}

/** The ids of the marked images, in the order of the files. */
function markedIds() {
  return new Set(state.marked ? state.marked.split(",") : []);
}

function toggleMark(item) {
  const marked = markedIds();
  if (!marked.delete(item.id)) marked.add(item.id);
  state.marked = items.filter((other) => marked.has(other.id)).map((other) => other.id).join(",");
}
