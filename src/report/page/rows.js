// Searches the examples that the page carries. Without it the page shows the first of
// them. Text only ever becomes text: no markup is made of what a row says.
"use strict";
(() => {
  const STEP = 20;
  const rows = JSON.parse(document.getElementById("listed").textContent);
  const form = document.querySelector("form.search");
  const list = document.getElementById("found");
  const more = document.getElementById("more");
  const count = document.querySelector(".count");
  const number = new Intl.NumberFormat("en-US");
  const orders = {
    long: (a, b) => b.n_supervised - a.n_supervised,
    short: (a, b) => a.n_supervised - b.n_supervised,
    loss: (a, b) => b.loss - a.loss,
    norm: (a, b) => b.norm - a.norm,
  };
  let found = rows;
  let shown = 0;

  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  const item = (row) => {
    const li = element("li", undefined, row.selected ? "" : "out");
    const body = element("div");
    const prompt = element("p", row.prompt || "(no user turn)");
    const answer = element("p", row.answer || "(no answer)", "answer");
    prompt.dir = answer.dir = "auto";
    const facts = element("p", undefined, "facts");
    const place = row.selected ? "selected" : "left out";
    for (const fact of [place, ...row.facts]) facts.append(element("span", fact), " ");
    const id = element("code", row.id.slice(0, 12));
    id.title = row.id;
    facts.append(id);
    body.append(prompt, answer, facts);
    li.append(element("div", number.format(row.rank), "rank"), body);
    return li;
  };

  const showMore = () => {
    const next = found.slice(shown, shown + STEP);
    list.querySelector("ol").append(...next.map(item));
    shown += next.length;
    more.hidden = shown === found.length;
    count.textContent =
      found.length === rows.length
        ? `${number.format(rows.length)} examples`
        : `${number.format(found.length)} of ${number.format(rows.length)} examples`;
  };

  const haystack = (row) =>
    (row.haystack ??= [row.prompt, row.answer, row.id, row.source, row.subtask]
      .join("\n")
      .toLowerCase());

  const search = () => {
    const wanted = new FormData(form);
    const words = wanted.get("words").toLowerCase().split(/\s+/).filter(Boolean);
    const place = wanted.get("place");
    const source = wanted.get("source");
    found = rows.filter(
      (row) =>
        (!place || (place === "selected") === row.selected) &&
        (!source || row.source === source) &&
        words.every((word) => haystack(row).includes(word)),
    );
    const order = orders[wanted.get("order")];
    if (order) found.sort(order);
    shown = 0;
    list.replaceChildren(element("ol", undefined, "rows"));
    showMore();
  };

  const sources = [...new Set(rows.map((row) => row.source))].sort();
  form.elements.source.append(...sources.map((source) => new Option(source, source)));
  form.addEventListener("input", search);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const last = list.querySelector("li:last-child");
    showMore();
    // Whoever came by keyboard goes on where the new ones begin.
    const next = last && last.nextElementSibling;
    if (next) {
      next.tabIndex = -1;
      next.focus({ preventScroll: true });
    }
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    const words = form.elements.words;
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      words.focus();
    } else if (event.key === "Escape" && event.target === words) {
      words.value = "";
      search();
      words.blur();
    }
  });
  document.getElementById("static").hidden = true;
  form.hidden = list.hidden = false;
  search();
})();
