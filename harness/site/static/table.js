// Sorting, filtering and paging of every table of class "data". Its rows stand in the page; where they are many, in a file
// beside it: window.tinydrop[id] has `names`, words by column, their pages (`hrefs`), and `rows` of numbers or of places
// in those words.
"use strict";
const SHOWN = 50;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function readPage(table) {
  return [...table.tBodies[0].rows].map((tr) => ({
    values: [...tr.cells].map(({ dataset: { v, t }, textContent }) => (v === undefined ? t ?? textContent.trim() : v === "" ? null : Number(v))),
    text: tr.textContent.toLowerCase(),
    element: () => tr,
  }));
}

function readFile(data, heads, link) {
  return data.rows.map((row) => {
    const values = row.map((value, i) => (i in data.names ? data.names[i][value] : value));
    return { values, text: values.join(" ").toLowerCase(), element: () => makeRow(row, values, data.hrefs, heads, link) };
  });
}

function makeRow(row, values, hrefs, heads, link) {
  const last = values.length - 1;
  const cells = values.map((value, i) => {
    const href = i < last ? hrefs[i]?.[row[i]] : value && link.replace("{}", value);
    if (!href) return make("td", { className: heads[i].className, textContent: value ?? "–" });
    const [name, options] = i < last ? value.split(/(?=\()/, 2) : ["record"];
    const small = options ? [make("small", { textContent: value.slice(name.length) })] : [];
    return make("td", { className: "link" }, make("a", { href }, name, ...small));
  });
  return make("tr", {}, ...cells);
}

const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

function enhance(table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const data = (window.tinydrop || {})[table.id];
  const rows = data ? readFile(data, heads, table.dataset.link) : readPage(table);
  const name = table.caption.textContent;
  const search = make("input", { type: "search", autocomplete: "off", placeholder: "Filter" });
  search.setAttribute("aria-label", `Filter: ${name}`);
  const count = make("output"), picks = [];
  const back = make("button", { type: "button", textContent: "Previous" });
  const next = make("button", { type: "button", textContent: "Next" });
  const tools = make("div", { className: "tools" }, search);
  let kept = rows, page = 0;

  function show() {
    const start = page * SHOWN, end = Math.min(start + SHOWN, kept.length);
    body.replaceChildren(...kept.slice(start, end).map((row) => row.element()));
    const all = kept.length === rows.length ? "" : ` (of ${rows.length.toLocaleString("en")})`;
    const noun = kept.length === 1 ? "row" : "rows";
    const part = kept.length > SHOWN ? `${(start + 1).toLocaleString("en")} to ${end.toLocaleString("en")} of ` : "";
    count.textContent = `${part}${kept.length.toLocaleString("en")} ${noun}${all}`;
    back.hidden = next.hidden = kept.length <= SHOWN;
    back.disabled = page === 0;
    next.disabled = end >= kept.length;
  }
  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = picks.filter(([, select]) => select.value !== "");
    kept = rows.filter((row) => words.every((word) => row.text.includes(word))
      && chosen.every(([i, select]) => String(row.values[i]) === select.value));
    page = 0;
    show();
  }
  function sort(i) {
    const down = heads[i].getAttribute("aria-sort") === "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[i].setAttribute("aria-sort", down ? "descending" : "ascending");
    const empty = (value) => value === null || value === "";
    const within = heads[i].dataset.within ?? i;
    rows.sort((a, b) => {
      const x = a.values[i], y = b.values[i];
      if (empty(x) || empty(y)) return empty(x) - empty(y);
      return (within !== i && compare(a.values[within], b.values[within])) || (down ? compare(y, x) : compare(x, y));
    });
    filter();
  }
  heads.forEach((head, i) => {
    const button = make("button", { type: "button", textContent: head.textContent, title: head.title });
    button.addEventListener("click", () => sort(i));
    head.replaceChildren(button);
    const values = "choose" in head.dataset ? [...new Set(rows.map((row) => row.values[i]))].sort(compare) : [];
    if (values.length < 2 || rows.length < 8) return;
    const select = make("select", {}, make("option", { value: "", textContent: `every ${button.textContent}` }),
      ...values.map((value) => make("option", { value: String(value), textContent: String(value) })));
    select.setAttribute("aria-label", `${button.textContent}: ${name}`);
    select.addEventListener("change", filter);
    picks.push([i, select]);
    tools.append(select);
  });
  search.addEventListener("input", filter);
  for (const [button, step] of [[back, -1], [next, 1]]) button.addEventListener("click", () => { page += step; show(); });
  tools.append(count, back, next);
  if (rows.length >= 8) table.parentElement.before(tools);
  show();
}

// A link to a section that is folded leads into it.
function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
}

document.querySelectorAll("table.data").forEach(enhance);
addEventListener("hashchange", unfold);
unfold();
