"use strict";
// Canvases: a thumbnail from its sheet, in grey under a map. Vermilion and blue of Okabe and Ito, which colour-blind people tell apart.

const FOR = "213, 94, 0";
const AGAINST = "0, 114, 178";
const OPAQUE = 0.85;

const decodedSheets = new Map();

/** The sheet with an item's thumbnail, a promise of an image. */
function sheetOf(item) {
  const { sheets, tiles } = item.collection;
  const address = sheets[Math.floor(item.number / (tiles * tiles))];
  if (!decodedSheets.has(address)) {
    const image = new Image();
    image.src = address;
    decodedSheets.set(address, image.decode().then(() => image));
  }
  return decodedSheets.get(address);
}

/** The end of the colour scale: one share for all maps, or a map's own largest. */
function endOf(map, scale) {
  return scale === "one" ? data.top : map.top || 1;
}

/** Draws an item into a canvas of `side` CSS pixels, with the map of a method over it; without a map in its own colours. */
async function draw(canvas, item, map, scale, side) {
  canvas.item = item; // a canvas of the grid may get another item before its sheet is decoded
  canvas.map = map;
  const sheet = await sheetOf(item);
  if (canvas.item !== item || canvas.map !== map) return;
  const pixels = Math.round(side * Math.min(2, window.devicePixelRatio || 1));
  const [height, width] = item.collection.shape.map((length) => Math.round((pixels * length) / Math.max(...item.collection.shape)));
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const [tileWidth, tileHeight] = item.collection.tile;
  const { tiles } = item.collection;
  const place = item.number % (tiles * tiles);
  context.drawImage(
    sheet, (place % tiles) * tileWidth, Math.floor(place / tiles) * tileHeight, tileWidth, tileHeight, 0, 0, width, height,
  );
  if (map) {
    context.globalCompositeOperation = "saturation"; // colour means the map, so the image is grey
    context.fillStyle = "hsl(0, 0%, 50%)";
    context.fillRect(0, 0, width, height);
    context.globalCompositeOperation = "source-over";
    drawCells(context, map, endOf(map, scale), width, height);
  }
  if (!draw.first) {
    draw.first = true;
    performance.mark("first picture");
  }
}

function drawCells(context, map, end, width, height) {
  const edge = (count, length) => Array.from({ length: count + 1 }, (_, at) => Math.round((at * length) / count));
  const [xs, ys] = [edge(map.columns, width), edge(map.rows, height)];
  map.cells.forEach((value, cell) => {
    const [row, column] = [Math.floor(cell / map.columns), cell % map.columns];
    const opacity = OPAQUE * Math.min(1, ((Math.abs(value) / 127) * map.top) / end);
    context.fillStyle = `rgba(${value < 0 ? AGAINST : FOR}, ${opacity})`;
    context.fillRect(xs[column], ys[row], xs[column + 1] - xs[column], ys[row + 1] - ys[row]);
  });
  if (map.kept) frameCells(context, map, xs, ys);
}

/** A line around the kept cells, black under white, seen on any image. */
function frameCells(context, map, xs, ys) {
  const isKept = (row, column) => row >= 0 && column >= 0 && row < map.rows && column < map.columns && map.kept[row * map.columns + column];
  context.beginPath();
  for (let row = 0; row <= map.rows; row += 1) {
    for (let column = 0; column <= map.columns; column += 1) {
      if (column < map.columns && Boolean(isKept(row, column)) !== Boolean(isKept(row - 1, column))) {
        context.moveTo(xs[column], ys[row]);
        context.lineTo(xs[column + 1], ys[row]);
      }
      if (row < map.rows && Boolean(isKept(row, column)) !== Boolean(isKept(row, column - 1))) {
        context.moveTo(xs[column], ys[row]);
        context.lineTo(xs[column], ys[row + 1]);
      }
    }
  }
  const thin = Math.max(1, context.canvas.width / 150);
  for (const [colour, size] of [["rgba(0, 0, 0, 0.8)", 3 * thin], ["#fff", 1.5 * thin]]) {
    context.strokeStyle = colour;
    context.lineWidth = size;
    context.stroke();
  }
}

/** The colour scale as a picture, with what its ends mean. */
function drawLegend(scale) {
  const canvas = document.getElementById("colours");
  const context = canvas.getContext("2d");
  context.fillStyle = "#888";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const half = canvas.width / 2;
  for (let x = 0; x < canvas.width; x += 1) {
    const value = (x + 0.5 - half) / half;
    context.fillStyle = `rgba(${value < 0 ? AGAINST : FOR}, ${OPAQUE * Math.abs(value)})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
  const end = scale === "one" ? `ends at ${Math.round(1000 * data.top) / 10} % of a map's weight` : "ends at each map's largest cell";
  document.getElementById("end").textContent = end;
  canvas.setAttribute("aria-label", `Colours: blue is weight against, orange is weight for; the scale ${end}`);
}
