
"use strict";
const text = document.getElementById("text");
const look = document.getElementById("look");
const rows = Array.from(document.querySelectorAll("tbody tr"), row => ({
  row,
  words: (row.textContent + " " + Array.from(row.querySelectorAll("td[title]"), cell => cell.title).join(" ")).toLowerCase(),
  looks: new Set(Array.from(row.querySelectorAll("td[class]"), cell => cell.className)),
}));
function filter() {
  const wanted = text.value.toLowerCase();
  let shown = 0;
  for (const r of rows) {
    const show = r.words.includes(wanted) && (look.value === "" || r.looks.has(look.value));
    r.row.hidden = !show;
    if (show) shown++;
  }
  document.getElementById("shown").textContent = shown + " of " + rows.length;
}
text.addEventListener("input", filter);
look.addEventListener("change", filter);
filter();
