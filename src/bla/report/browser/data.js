"use strict";
// What the page holds: `items` (one per image), `methods` (of all datasets), and what is known of an item under a method.

const data = JSON.parse(document.getElementById("data").textContent);

/** The numbers of a base64 text as a typed array; null stays null. */
function unpacked(text, Type) {
  if (text === null) return null;
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at += 1) bytes[at] = raw.charCodeAt(at);
  return new Type(bytes.buffer);
}

/** Makes `object[name]` on first use: a large page decodes only what it shows. */
function lazy(object, name, make) {
  let value;
  Object.defineProperty(object, name, { get: () => (value === undefined ? (value = make()) : value) });
}

const KINDS = {
  classes: Int32Array, probabilities: Float32Array, losses: Float32Array, right: Uint8Array,
  images: Int32Array, cells: Int8Array, tops: Float32Array, kept: Uint8Array, explained: Int32Array, spread: Float32Array,
};

/** The record with its base64 texts as lazily decoded arrays. */
function decoded(record, names) {
  const result = { ...record };
  for (const name of names) lazy(result, name, () => unpacked(record[name], KINDS[name]));
  return result;
}

const items = [];
const methods = []; // {name, title} of all datasets, in order
for (const collection of data.collections) {
  const predictions = collection.predictions.map((record) => decoded(record, Object.keys(record)));
  collection.byName = new Map();
  for (const record of collection.methods) {
    const method = decoded(record, ["images", "cells", "tops", "kept", "explained", "spread"]);
    method.predictions = predictions[record.predictions];
    lazy(method, "places", () => method.images && new Map(Array.from(method.images, (number, place) => [number, place])));
    collection.byName.set(record.name, method);
    if (!methods.some((other) => other.name === record.name)) methods.push({ name: record.name, title: record.title });
  }
  const packed = collection.disagreement;
  lazy(collection, "disagreements", () => unpacked(packed, Float32Array));
  collection.files.forEach((file, number) => {
    const id = `${encodeURIComponent(collection.name)}:${number}`; // has no comma, which separates ids in the address
    items.push({ id, collection, number, file, index: items.length });
  });
}
const byId = new Map(items.map((item) => [item.id, item]));

/** The method of the item's dataset; undefined if it was not computed there. */
function methodOf(item, name) {
  return item.collection.byName.get(name);
}

/** The map of an item: signed cells, the share that 127 stands for, and kept cells; null if it was not computed. */
function mapOf(item, name) {
  const method = methodOf(item, name);
  const place = method && (method.images ? method.places.get(item.number) : item.number);
  if (place === undefined) return null;
  const [rows, columns] = item.collection.grid;
  const count = rows * columns;
  const bytes = Math.ceil(count / 8);
  const bits = method.kept && method.kept.subarray(place * bytes, (place + 1) * bytes);
  return {
    rows, columns, top: method.tops[place],
    cells: method.cells.subarray(place * count, (place + 1) * count),
    kept: bits && Array.from({ length: count }, (_, cell) => ((bits[cell >> 3] >> (7 - (cell & 7))) & 1) === 1),
  };
}

/** Numbers of an item under a method; NaN where there is none. Without a method, those of the dataset's first one. */
function factsOf(item, name) {
  const collection = item.collection;
  const method = methodOf(item, name) || (name ? null : collection.byName.values().next().value);
  const disagreement = collection.disagreements ? collection.disagreements[item.number] : NaN;
  if (!method) return { method: name, predicted: null, probability: NaN, loss: NaN, right: null, size: NaN, spread: NaN, disagreement };
  const given = method.predictions;
  const map = method.kept && mapOf(item, method.name);
  return {
    method: method.name,
    predicted: collection.classes[given.classes[item.number]],
    probability: given.probabilities[item.number],
    loss: given.losses[item.number],
    right: given.right ? given.right[item.number] === 1 : null,
    size: map ? map.kept.filter(Boolean).length : NaN,
    spread: method.spread ? method.spread[item.number] : NaN,
    explained: method.explained ? collection.classes[method.explained[item.number]] : undefined,
    disagreement,
  };
}

/** The true classes of an item, as one text; an image without classes has none, or its classes are unknown. */
function truth(item) {
  const { labels, classes, predictions } = item.collection;
  const names = labels[item.number].map((label) => classes[label]);
  return names.join(", ") || (predictions[0].right === null ? "unknown" : "none");
}

/** A map in words, for screen readers: where its three largest cells lie, and how much of the weight. */
function mapInWords(map) {
  if (!map) return "map not computed";
  const order = Array.from(map.cells.keys()).sort((a, b) => map.cells[b] - map.cells[a]).slice(0, 3);
  const largest = order.filter((cell) => map.cells[cell] > 0).map((cell) => {
    const place = `row ${Math.floor(cell / map.columns) + 1}, column ${(cell % map.columns) + 1}`;
    return `${place} (${Math.round((100 * map.top * map.cells[cell]) / 127)} %)`;
  });
  return largest.length ? `largest weights of ${map.rows} by ${map.columns} cells: ${largest.join("; ")}` : "no weight above zero";
}
