// The figures of "The method, step by step": drawn from the recorded data in the page, which only ever becomes text nodes.
"use strict";
(() => {
const holder = document.getElementById("jf-data");
if (!holder) return;
const data = JSON.parse(holder.textContent);
const {texts} = data;

// ---- parts

function make(name, className, ...content) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...content);
  return node;
}
function shape(name, attributes, ...content) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...content);
  return node;
}
const plural = (n, word, more = `${word}s`) => `${n} ${n === 1 ? word : more}`;
const listed = words => words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")}${words.length > 2 ? "," : ""} and ${words.at(-1)}`;

// A token by itself: blanks become visible marks.
function marked(token) {
  const printable = texts[token].replace(/ {3,}/g, run => `·${run.length}`).replace(/ /g, "·").replace(/\n/g, "↵");
  const [, before, word] = printable.match(/^([·↵]*)(.*)$/s);
  return before ? [make("span", "jf-blank", before), word] : [word];
}

// Buttons of which one is pressed.
function choice(label, options, pick) {
  const group = make("div", "jf-choice", make("span", "", label));
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", label);
  const buttons = options.map(([value, words]) => {
    const button = make("button", "", words);
    button.type = "button";
    button.onclick = () => set(value);
    group.append(button);
    return [value, button];
  });
  function set(value) {
    for (const [own, button] of buttons) button.setAttribute("aria-pressed", String(own === value));
    pick(value);
  }
  return {group, set};
}

// Back, a slider and next; `show` draws a step and returns what the status line says of it.
function stepper(stage, label, show) {
  const slider = make("input"), status = make("p", "jf-says");
  const back = make("button", "", "Back"), next = make("button", "", "Next");
  slider.type = "range";
  slider.min = 0;
  slider.setAttribute("aria-label", label);
  back.type = next.type = "button";
  back.setAttribute("aria-label", `${label}: back`);
  next.setAttribute("aria-label", `${label}: next`);
  status.setAttribute("role", "status");
  let step = 0, count = 1;
  function go(to) {
    step = Math.max(0, Math.min(count - 1, to));
    slider.value = step;
    slider.setAttribute("aria-valuetext", `${step + 1} of ${count}`);
    back.disabled = step === 0;
    next.disabled = step === count - 1;
    status.replaceChildren(...show(step));
  }
  slider.oninput = () => go(Number(slider.value));
  back.onclick = () => go(step - 1);
  next.onclick = () => go(step + 1);
  stage.addEventListener("keydown", event => {
    if (event.target === slider || event.ctrlKey || event.metaKey || event.altKey) return;
    const move = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!move) return;
    event.preventDefault();
    go(step + move);
  });
  const bar = make("div", "jf-steps", back, slider, next);
  return {
    bar, status, go,
    reset(number, to) { count = number; slider.max = number - 1; go(to); },
    get step() { return step; },
  };
}
const strong = words => make("b", "", words);

// A place of a draft: what was guessed above, what the model says there below.
function place(number, guess, verdict, says, state) {
  const cell = make("li", "jf-place", make("small", "", String(number)));
  const sign = {right: "✓", wrong: "✗"}[verdict] || "";
  const words = {right: "right guess ", wrong: "wrong guess ", open: "guess "}[verdict];
  cell.append(guess === undefined ? make("span", "jf-guess none", "–")
    : make("span", `jf-guess ${verdict}`, make("span", "jf-hidden", words), ...marked(guess), make("i", "", sign)));
  cell.append(says === undefined ? make("span", "jf-token none", "–")
    : make("span", `jf-token ${state}`, make("span", "jf-hidden", ", model says "), ...marked(says)));
  return cell;
}
function places(...cells) {
  return make("ul", "jf-places", ...cells);
}

// The answer so far, as it reads; the newest tokens marked.
function answerSoFar(answer, offset, accepted) {
  const text = make("p", "jf-text");
  const piece = (from, to) => answer.slice(from, to).map(token => texts[token]).join("");
  text.append(piece(0, offset), make("mark", "", piece(offset, offset + accepted)));
  return text;
}

// All forwards at once: rows are forwards, columns are places of the answer.
function overview(numRows, numColumns, rects, pick) {
  const map = shape("svg", {viewBox: `0 0 ${numColumns} ${numRows}`, preserveAspectRatio: "none", class: "jf-map", "aria-hidden": "true"});
  map.style.height = `${Math.max(110, Math.min(300, numRows * 5))}px`;
  for (const [row, from, length, className] of rects) {
    map.append(shape("rect", {x: from, y: row + .08, width: length, height: .84, class: className}));
  }
  const now = shape("rect", {x: 0, width: numColumns, height: 1, class: "now"});
  map.append(now);
  map.onclick = event => {
    const box = map.getBoundingClientRect();
    pick(Math.floor((event.clientY - box.top) / box.height * numRows));
  };
  return {map, at(row) { now.setAttribute("y", row); }};
}
function runs(row, first, states) {
  const found = [];
  states.forEach((state, i) => {
    const last = found.at(-1);
    if (last && last[3] === state) last[2] += 1;
    else found.push([row, first + i, 1, state]);
  });
  return found.filter(run => run[3]);
}
function legend(...items) {
  return make("ul", "jf-legend", ...items.map(([className, sample, meaning]) =>
    make("li", "", make("span", `${className} sample`, sample), meaning)));
}
const tokenLegend = [
  ["jf-token accepted", "token", "settled by this forward"],
  ["jf-token stationary", "token", "right already, but one before it was not"],
  ["jf-token wrong", "token", "still wrong"],
];

// ---- (a) one iteration after the other

function decode(stage, drawn) {
  const views = drawn.runs.map(run => ({...run, states: run.forwards.map(forward => statesOf(run, forward))}));
  let run = views[0], map;
  const body = make("div"), mapHolder = make("div", "jf-map-holder");
  const steps = stepper(stage, "Forward pass", step => {
    const forward = run.forwards[step], {offset, guesses, choices, accepted} = forward;
    const numRight = rightGuesses(forward);
    const cells = choices.map((says, i) => place(offset + i + 1, guesses[i],
      i < numRight ? "right" : i === numRight ? "wrong" : "open", says, run.states[step][i]));
    body.replaceChildren(answerSoFar(run.answer, offset, accepted), places(...cells));
    map?.at(step);
    const first = guesses.length ? numRight === guesses.length ? "all of them right" : numRight
      ? `the first ${numRight === 1 ? "one" : numRight} right` : "the first one wrong" : "";
    return [
      strong(`Forward ${step + 1} of ${run.forwards.length}`), step ? ": " : ", the prefill: ",
      guesses.length ? `${plural(guesses.length, "guess", "guesses")}, ${first}. ` : "no guesses. ",
      `It settles ${plural(accepted, "token")}. So far ${offset + accepted}, where one at a time has ${step + 1}.`,
    ];
  });
  const models = choice("Model", views.map((view, i) => [i, view.model]), i => {
    run = views[i];
    const rects = run.forwards.flatMap((forward, row) => runs(row, forward.offset, run.states[row]));
    map = overview(run.forwards.length, run.answer.length, rects, row => steps.go(row));
    mapHolder.replaceChildren(map.map);
    steps.reset(run.forwards.length, steps.step);
    map.at(steps.step);
  });
  stage.append(make("p", "jf-prompt", make("b", "", "Prompt "), data.problem.prompt.trim()), models.group, steps.bar, steps.status, body,
    legend(["jf-guess right", "guess ✓", "right"], ["jf-guess wrong", "guess ✗", "the first wrong one"], ["jf-guess open", "guess", "behind it: not decided"], ...tokenLegend),
    make("p", "jf-note", "All forwards, top to bottom; places of the answer, left to right. Click a row to go there."), mapHolder);
  models.set(0);
  steps.go(views[0].forwards.findIndex(forward => forward.accepted > 3 && forward.accepted < forward.guesses.length));
}
function rightGuesses({guesses, choices, accepted}) {
  let count = 0;
  while (count < guesses.length && count < accepted && guesses[count] === choices[count]) count++;
  return count;
}
function statesOf(run, {offset, accepted, choices}) {
  return choices.map((token, i) => i < accepted ? "accepted" : offset + i >= run.answer.length ? "beyond"
    : token === run.answer[offset + i] ? "stationary" : "wrong");
}

// ---- (b) the schedule

function schedule(stage, drawn) {
  const body = make("div"), chart = make("div", "jf-chart");
  const wanted = {schedule: "progressive", window: 8};
  let current, bars = [];
  const firstWrong = (block, state) => Math.round((1 - drawn.noise[block][state]) * drawn.blockSize);
  const steps = stepper(stage, "Block", block => {
    bars.forEach((bar, i) => bar.classList.toggle("now", i === block));
    const states = drawn.blocks[block], state = current.taken[block], clean = states.at(-1);
    const from = firstWrong(block, state);
    body.replaceChildren(places(...states[state].map((token, i) =>
      place(block * drawn.blockSize + i + 1, token, token === clean[i] ? "right" : "wrong", clean[i], i < from ? "plain" : "noise"))));
    return [
      strong(`Block ${block} of ${drawn.blocks.length}`),
      ` (counted from 0): the schedule asks for ${current.aims[block].toFixed(2)}. Nearest of its ${plural(states.length, "state")} is state ${state}, noise ratio ${drawn.noise[block][state].toFixed(2)}: `,
      from === drawn.blockSize ? "nothing in it is wrong." : `wrong from its token ${from + 1} on.`,
    ];
  });
  function redraw() {
    current = drawn.cases.find(found => found.schedule === wanted.schedule && found.window === wanted.window);
    bars = current.aims.map((aim, block) => {
      const noise = drawn.noise[block][current.taken[block]];
      const picture = shape("svg", {viewBox: "0 0 10 100", preserveAspectRatio: "none", "aria-hidden": "true"},
        shape("rect", {x: 1, y: 100 - 100 * noise, width: 8, height: 100 * noise, class: "ratio"}),
        shape("line", {x1: 0, x2: 10, y1: 100 - 100 * aim, y2: 100 - 100 * aim, class: "aim", "vector-effect": "non-scaling-stroke"}));
      const bar = make("div", "jf-bar", picture, make("small", "", String(block)));
      bar.onclick = () => steps.go(block);
      return bar;
    });
    chart.replaceChildren(...bars);
    steps.reset(drawn.blocks.length, steps.step);
  }
  const kinds = choice("Schedule", [...new Set(drawn.cases.map(found => found.schedule))].map(name => [name, name]),
    name => { wanted.schedule = name; if (bars.length) redraw(); });
  const windows = choice("Window, blocks", [...new Set(drawn.cases.map(found => found.window))].map(size => [size, String(size)]),
    size => { wanted.window = size; if (bars.length) redraw(); });
  stage.append(make("div", "jf-row", kinds.group, windows.group), chart,
    legend(["jf-swatch ratio", "", "noise ratio of the state taken, 0 to 1"], ["jf-swatch aim", "", "what the schedule asks for"]),
    steps.bar, steps.status, body,
    make("p", "jf-note", "Above: the noisy block, the state that was taken. Below: the clean block, what it came to. A right token behind a wrong one counts as noise."));
  kinds.set("progressive");
  windows.set(8);
  redraw();
  steps.go(5);
}

// ---- (c) the mask

function mask(stage, drawn) {
  const size = drawn.stream.length, unit = 10, margin = 22;
  const streams = ["prompt", "noisy", "clean"];
  const name = token => drawn.block[token] < 0 ? "prompt" : `${streams[drawn.stream[token]]} ${drawn.block[token]}`;
  const names = drawn.stream.map((_, token) => name(token));
  const picture = shape("svg", {viewBox: `0 0 ${margin + size * unit + 1} ${margin + size * unit + 1}`, class: "jf-mask", "aria-hidden": "true"});
  const rows = [], now = shape("rect", {x: margin, width: size * unit, height: unit, class: "now"});
  for (let row = 0; row < size; row++) {
    rows.push(drawn.stream.map((_, column) =>
      shape("rect", {x: margin + column * unit + .5, y: margin + row * unit + .5, width: unit - 1, height: unit - 1, rx: 1.5})));
    picture.append(...rows[row]);
  }
  for (const block of new Set(names)) {
    const first = names.indexOf(block), length = names.lastIndexOf(block) - first + 1, middle = margin + (first + length / 2) * unit;
    const short = block === "prompt" ? "P" : block[0] + block.at(-1);
    const stream = streams[drawn.stream[first]];
    picture.append(shape("text", {x: middle, y: 11, class: "label", "text-anchor": "middle"}, short),
      shape("text", {x: 8, y: middle + 3, class: "label", "text-anchor": "middle"}, short),
      shape("rect", {x: margin + first * unit + .5, y: 16, width: length * unit - 1, height: 3, rx: 1, class: stream}),
      shape("rect", {x: 16, y: margin + first * unit + .5, width: 3, height: length * unit - 1, rx: 1, class: stream}));
  }
  picture.append(now);
  let variant = "noise-conditioned";
  const steps = stepper(stage, "Token", token => {
    now.setAttribute("y", margin + token * unit);
    rows.forEach((cells, row) => cells.forEach(cell => cell.classList.toggle("far", row !== token)));
    return [strong(`Token ${token}`), `, ${whole(names[token])}, place ${drawn.position[token]}: it sees ${sight(token)}.`];
  });
  const whole = words => words === "prompt" ? "of the prompt" : `of ${words.replace(" ", " block ")}`;
  function sight(token) {
    const seen = [...drawn.variants[variant][token]].map(Number), own = names[token];
    const others = [...new Set(names.filter((other, i) => seen[i] && other !== own))];
    const ofOwn = names.filter((other, i) => seen[i] && other === own).length;
    const groups = streams.map(stream => [stream, others.filter(other => other.startsWith(stream))]).filter(([, found]) => found.length);
    const words = groups.map(([stream, found]) => stream === "prompt" ? "the prompt"
      : `${stream} ${found.length === 1 ? "block" : "blocks"} ${listed(found.map(each => each.split(" ")[1]))}`);
    const before = ofOwn - 1;
    return listed([...words, before ? `itself with the ${before === 1 ? "token" : `${before} tokens`} before it ${own === "prompt" ? "" : "in its block"}`.trim() : "itself"]);
  }
  const variants = choice("Mask", Object.keys(drawn.variants).map(each => [each, each]), chosen => {
    variant = chosen;
    rows.forEach((cells, row) => cells.forEach((cell, column) =>
      cell.setAttribute("class", drawn.variants[variant][row][column] === "1" ? streams[drawn.stream[column]] : "hidden")));
    steps.go(steps.step);
  });
  const rowAt = event => {
    const box = picture.getBoundingClientRect();
    return Math.floor(((event.clientY - box.top) / box.height * (margin + size * unit + 1) - margin) / unit);
  };
  picture.addEventListener("pointermove", event => {
    const row = rowAt(event);
    if (event.pointerType === "mouse" && row >= 0 && row < size && row !== steps.step) steps.go(row);
  });
  picture.addEventListener("click", event => steps.go(rowAt(event)));
  stage.append(variants.group, steps.bar, steps.status, picture,
    legend(["jf-swatch prompt", "", `prompt (P), ${drawn.promptTokens} tokens`], ["jf-swatch noisy", "", `noisy block (n), ${drawn.blockSize} tokens`],
      ["jf-swatch clean", "", "clean block (c)"], ["jf-swatch hidden", "", "hidden"]),
    make("p", "jf-note", `Rows look at columns. ${plural(drawn.window, "block")} to a window, for windowed. The default is noise-conditioned.`));
  steps.reset(size, names.lastIndexOf("noisy 2"));
  variants.set(variant);
}

// ---- (d) several blocks, and branches

function blocks(stage, drawn) {
  const {forwards, answer, blockSize} = drawn;
  const body = make("div");
  const blocksOf = forward => forward.trunk ? Math.max(...forward.sources.slice(0, forward.trunk)) + 1 : 0;
  const rects = forwards.flatMap((forward, row) => {
    const won = forward.path.filter(node => node >= forward.trunk).length;
    const trunkWon = forward.path.length - won;
    const states = forward.held.map((_, i) => forward.offset + i >= answer.length ? ""
      : i < forward.accepted ? i >= trunkWon && i < forward.path.length ? "recycled" : "accepted"
      : (forward.sources[Math.min(i, forward.trunk - 1)] ? "speculative" : "verified"));
    return runs(row, forward.offset, states);
  });
  const map = overview(forwards.length, answer.length, rects, row => steps.go(row));
  const steps = stepper(stage, "Forward pass", step => {
    const forward = forwards[step], {offset, accepted} = forward;
    const lanes = make("div", "jf-lanes"), right = new Set(forward.path);
    const state = i => i < accepted ? "accepted" : offset + i >= answer.length ? "beyond"
      : forward.held[i] === answer[offset + i] ? "stationary" : "wrong";
    const trunk = forward.held.map((says, i) => ({
      block: forward.sources[Math.min(i, forward.trunk - 1)] || 0,
      cell: place(offset + i + 1, i < forward.trunk ? forward.tokens[i] : undefined,
        right.has(i) ? "right" : i === trunkRight(forward) ? "wrong" : "open", says, state(i)),
    }));
    const numBlocks = Math.max(1, blocksOf(forward));
    for (let block = 0; block < numBlocks; block++) {
      const number = Math.floor(offset / blockSize) + block + 1;
      const cells = trunk.filter(each => each.block === block).map(each => each.cell);
      lanes.append(lane(block ? "speculative" : "verified", `Block ${number}`, block ? "speculative" : "verified", places(...cells)));
    }
    const branches = [...new Set(forward.sources.slice(forward.trunk))];
    for (const branch of branches) lanes.append(branchLane(forward, branch, right));
    body.replaceChildren(answerSoFar(answer, offset, accepted), lanes);
    map.at(step);
    return says(step, numBlocks, branches.length);
  });
  // The trunk's right guesses before its first wrong one.
  function trunkRight(forward) {
    let count = 0;
    while (count < forward.trunk && forward.path[count] === count) count++;
    return count;
  }
  function says(step, numBlocks, numBranches) {
    const forward = forwards[step], before = forwards[step - 1];
    const recycled = forward.path.filter(node => node >= forward.trunk).length;
    const first = Math.floor(forward.offset / blockSize), firstBefore = before ? Math.floor(before.offset / blockSize) : 0;
    const words = [strong(`Forward ${step + 1} of ${forwards.length}`), `: ${plural(numBlocks, "block")} in flight, ${plural(numBranches, "branch", "branches")}. `];
    if (before && first > firstBefore) words.push(blocksOf(before) > first - firstBefore ? `Block ${first + 1} is the verified one now, with what it learned. ` : `Block ${first + 1} begins. `);
    if (before && first + numBlocks > firstBefore + blocksOf(before) && numBlocks > 1) words.push(`Block ${first + numBlocks} has opened, as noise. `);
    words.push(`${plural(forward.path.length, "guess is", "guesses are")} right`, recycled ? `, ${recycled === forward.path.length ? "found" : `${recycled} of them`} only in a branch` : "",
      `; ${plural(forward.accepted, "token")} settled, ${forward.offset + forward.accepted} so far.`);
    return words;
  }
  function lane(className, title, kind, content) {
    const node = make("section", `jf-lane ${className}`, make("p", "jf-lane-title", title, make("small", "", kind)), content);
    node.setAttribute("aria-label", `${title}, ${kind}`);
    return node;
  }
  function branchLane(forward, branch, right) {
    const own = forward.sources.map((source, node) => source === branch ? node : -1).filter(node => node >= 0);
    const parent = node => node < forward.trunk ? node - 1 : forward.parents[node - forward.trunk];
    const shared = [];
    for (let node = parent(own[0]); node >= 0; node = parent(node)) shared.unshift(node);
    const chips = [...shared, ...own].map(node => {
      const isOwn = own.includes(node), isRight = right.has(node);
      return make("li", "", make("span", `jf-guess ${isOwn ? isRight ? "right" : "open" : "shared"}`,
        make("span", "jf-hidden", isOwn ? isRight ? "right guess " : "guess " : "shared "), ...marked(forward.tokens[node]), make("i", "", isOwn && isRight ? "✓" : "")));
    });
    return lane("branch", `Branch ${-branch}`, "recycled", make("ul", "jf-places", ...chips));
  }
  stage.append(steps.bar, steps.status, body,
    legend(["jf-guess right", "guess ✓", "right"], ["jf-guess wrong", "guess ✗", "the first wrong one"], ["jf-guess shared", "guess", "shared with another draft"], ...tokenLegend),
    make("p", "jf-note", "All forwards, top to bottom; places of the answer, left to right. Click a row to go there."), make("div", "jf-map-holder", map.map),
    legend(["jf-swatch accepted", "", "settled"], ["jf-swatch recycled", "", "settled by a branch"], ["jf-swatch verified", "", "verified block"], ["jf-swatch speculative", "", "speculative blocks"]));
  steps.reset(forwards.length, forwards.findIndex(forward => blocksOf(forward) > 1 && forward.path.some(node => node >= forward.trunk)));
}

const draw = {decode, schedule, mask, blocks};
for (const figure of document.querySelectorAll(".jf[data-figure]")) {
  const stage = figure.querySelector(".jf-stage");
  stage.replaceChildren();
  draw[figure.dataset.figure](stage, data[figure.dataset.figure]);
}
})();
