"""The questionnaire's JavaScript: screens, the random order of questions, saved answers, and the file at the end."""

SCRIPT = r"""
"use strict";
const study = JSON.parse(document.getElementById("study").textContent);
const DAY = 24 * 60 * 60 * 1000, KEY = "bla-study-" + study.page;
const SCREENS = ["consent", "about", "introduction", "comprehension", "question", "end"];
const at = id => document.getElementById(id);
let state, shownAt = 0;

// mulberry32: random numbers in [0, 1) from a 32-bit seed, so that order and sides follow from the recorded seed.
function generator(seed) {
  return () => {
    seed = (seed + 0x6D2B79F5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), seed | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function shuffled(list, random) {
  const result = [...list];
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [result[i], result[j]] = [result[j], result[i]];
  }
  return result;
}

// All questions of a person: comparisons in random order, one of the first half again with swapped sides, predictions.
function questionsOf(seed) {
  const random = generator(seed), comparisons = [], predictions = [];
  for (const dataset of study.datasets) {
    const images = shuffled(dataset.images, random);
    for (const against of study.others)
      for (let i = 0; i < study.questions; i++)
        comparisons.push({dataset, image: images.pop(), against, bla_t: random() < 0.5 ? "left" : "right"});
    for (const method of study.methods) {
      const image = images.pop(), labels = dataset.classes.map((_, label) => label);
      const wrong = shuffled(labels.filter(label => label !== image.decided), random).slice(0, study.options - 1);
      predictions.push({dataset, image, method, options: shuffled([image.decided, ...wrong], random)});
    }
  }
  const asked = shuffled(comparisons, random), first = asked[Math.floor(random() * asked.length / 2)];
  const repeated = {...first, bla_t: first.bla_t === "left" ? "right" : "left", repeated: true};
  return [...asked, repeated, ...shuffled(predictions, random)];
}

function fresh() {
  const numbers = crypto.getRandomValues(new Uint32Array(5));
  const participant = [...numbers.slice(1)].map(n => n.toString(16).padStart(8, "0")).join("");
  return {participant, seed: numbers[0], screen: "consent", answers: []};
}

function stored() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY));
    return found && (found.screen === "end" || Date.now() - found.saved < DAY) ? found : null;
  } catch { return null; }
}

function save() {
  state.saved = Date.now();
  try { localStorage.setItem(KEY, JSON.stringify(state)); } catch { at("unsaved").hidden = false; }
}

function go(screen) {
  state.screen = screen;
  save();
  show();
}

function seconds() { return Math.min(86400, Math.round(performance.now() - shownAt) / 1000); }

function chosen(form) { return new FormData(form).get("choice"); }

function classText(dataset, label) { return dataset.classes[label].replaceAll("_", " "); }

function show() {
  for (const screen of SCREENS) at(screen).hidden = screen !== state.screen;
  const questions = questionsOf(state.seed), asking = state.screen === "question";
  at("progress").hidden = !asking;
  if (asking) ask(questions);
  if (state.screen === "end") finish();
  scrollTo(0, 0);
  at(state.screen).querySelector("h1").focus();
  shownAt = performance.now();
}

function picture(source, alt, caption) {
  const figure = document.createElement("figure"), image = document.createElement("img");
  image.src = source;
  image.alt = alt;
  figure.append(image);
  if (caption) figure.append(Object.assign(document.createElement("figcaption"), {textContent: caption}));
  return figure;
}

function ask(questions) {
  const number = state.answers.length, item = questions[number], predicting = "method" in item;
  at("bar").max = questions.length;
  at("bar").value = number;
  at("place").textContent = `Question ${number + 1} of ${questions.length}`;
  const name = classText(item.dataset, item.image.decided), count = item.dataset.classes.length;
  at("what").textContent = predicting ? "Which class did the system decide for?" : "Which system behaves more reasonably?";
  at("text").textContent = predicting
    ? `A system was trained to tell ${count} classes of images apart. It decided for one of the classes below. You see only ` +
      `the parts of the image on which it bases its decision, as an explanation says. Beside each class there is another ` +
      `image of it. If you do not know, guess: 1 of ${item.options.length} guesses is right.`
    : `Two systems, A and B, were trained to tell ${count} classes of images apart. Both decide for the class ` +
      `“${name}” in this example. Below, the two systems show on which parts of the image they base their decision ` +
      `(red: used, dark blue: not used).`;
  const left = item.bla_t === "left" ? "bla_t" : item.against, right = item.bla_t === "left" ? item.against : "bla_t";
  at("photo").replaceChildren(...(predicting ? [picture(item.image.masks[item.method], "The parts of the image that the explanation keeps")]
    : [picture(item.image.photo, `Image; both systems decide for ${name}`)]));
  at("pair").replaceChildren(...(predicting ? [] : [
    picture(item.image.overlays[left], "Explanation of system A", "System A"),
    picture(item.image.overlays[right], "Explanation of system B", "System B")]));
  const options = predicting ? item.options.map(label => [label, classText(item.dataset, label)])
    : [["left", "System A"], ["right", "System B"], ["equal", "Both are equally reasonable"]];
  at("choices").replaceChildren(...options.map(([value, text]) => {
    const label = document.createElement("label");
    label.append(Object.assign(document.createElement("input"), {type: "radio", name: "choice", value, required: true}));
    if (predicting && item.dataset.examples[value])
      label.append(Object.assign(document.createElement("img"), {src: item.dataset.examples[value], alt: ""}));
    label.append(" " + text);
    return label;
  }));
}

function record(item, answer) {
  const about = {dataset: item.dataset.name, image: item.image.number};
  if ("method" in item)
    return {...about, method: item.method, options: item.options, decided: item.image.decided, choice: Number(answer.choice), seconds: answer.seconds};
  return {...about, against: item.against, bla_t: item.bla_t, choice: answer.choice, seconds: answer.seconds};
}

function answersFile() {
  const questions = questionsOf(state.seed), rows = questions.map((item, i) => record(item, state.answers[i]));
  const those = test => rows.filter((_, i) => test(questions[i]));
  return JSON.stringify({
    format: 1, page: study.page, participant: state.participant, seed: state.seed, consent: true, ...state.about,
    comprehension: state.comprehension,
    datasets: study.datasets.map(({name, kind, departures}) => ({name, kind, departures})),
    comparisons: those(item => "against" in item && !item.repeated),
    repeated: those(item => item.repeated)[0],
    predictions: those(item => "method" in item),
  }, null, 1) + "\n";
}

function finish() {
  const text = answersFile();
  at("answers").textContent = text;
  const link = at("download");
  if (link.href) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([text], {type: "application/json"}));
  link.download = `answers-${state.participant.slice(0, 8)}.json`;
}

function onSubmit(form, handle) {
  form.addEventListener("submit", event => { event.preventDefault(); handle(form); });
}

onSubmit(at("consent-form"), () => go("about"));
onSubmit(at("about-form"), form => {
  const given = new FormData(form), age = given.get("age");
  state.about = {age: age === "" ? null : Number(age), gender: given.get("gender"), ml: given.get("ml"), xai: given.get("xai")};
  go("introduction");
});
onSubmit(at("introduction-form"), () => go("comprehension"));
onSubmit(at("comprehension-form"), form => {
  state.comprehension ??= {choice: chosen(form), seconds: seconds()};  // the first attempt counts
  save();
  at("hint").hidden = chosen(form) === study.understood;
  if (chosen(form) === study.understood) go("question");
});
onSubmit(at("question-form"), form => {
  state.answers.push({choice: chosen(form), seconds: seconds()});
  go(state.answers.length < questionsOf(state.seed).length ? "question" : "end");
});
addEventListener("storage", event => {  // answered in another tab
  if (event.key === KEY && stored()) { state = stored(); show(); }
});
state = stored() ?? fresh();
show();
"""
