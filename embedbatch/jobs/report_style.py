"""How a report looks. No character of it has to be escaped."""

from __future__ import annotations

from .markup import Markup

STYLE = Markup("""
:root {
  --page: #f6f7f9; --card: #ffffff; --ink: #1b1f24; --soft: #5b6470; --edge: #dfe3e8; --grid: #e6e9ed;
  --blue: #2563eb; --green: #15803d; --orange: #d97706; --red: #dc2626; --violet: #8b5cf6;
  --paused: #f5c542; --away: #ef6a6a; --shade: 0.30;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12151a; --card: #1b2028; --ink: #e8eaed; --soft: #9aa4b1; --edge: #2d343f; --grid: #2b313b;
    --blue: #6ea8fe; --green: #4ade80; --orange: #fbbf24; --red: #f87171; --violet: #b79cff;
    --paused: #c99a1a; --away: #c94b4b; --shade: 0.35;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink); line-height: 1.45; -webkit-text-size-adjust: 100%;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
}
main, footer { max-width: 60rem; margin: 0 auto; padding: 1.5rem; }
footer { padding-top: 0; color: var(--soft); font-size: 0.85rem; }
h1 { margin: 0 0 0.6rem; font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 0; font-size: 1.05rem; }
h2 small { margin-left: 0.3rem; color: var(--soft); font-size: 0.85rem; font-weight: normal; }
dl, dd { margin: 0; }
.state {
  margin: 0 0 1rem; padding: 0.55rem 0.9rem; border-left: 4px solid; border-radius: 4px; background: var(--card);
  overflow-wrap: anywhere;
}
.good { border-color: var(--green); }
.fair { border-color: var(--orange); }
.bad { border-color: var(--red); }
.facts div { display: flex; gap: 0.8rem; padding: 0.1rem 0; }
.facts dt { flex: 0 0 6rem; color: var(--soft); }
.facts dd { min-width: 0; overflow-wrap: anywhere; }
.numbers {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(9.8rem, 1fr)); gap: 0.7rem; margin: 1.2rem 0;
}
.numbers div, figure, section { border: 1px solid var(--edge); border-radius: 8px; background: var(--card); }
.numbers div { padding: 0.6rem 0.8rem; }
.numbers dt { color: var(--soft); font-size: 0.85rem; }
.numbers dd { font-size: 1.2rem; font-weight: 600; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.note { margin: 0 0 0.8rem; color: var(--soft); }
figure { margin: 0 0 1rem; padding: 0.9rem 1.2rem 0.5rem; }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0.2rem 1rem; margin-bottom: 0.4rem; }
.legend {
  display: flex; flex-wrap: wrap; gap: 0.1rem 1rem; margin: 0; padding: 0; list-style: none; font-size: 0.85rem;
}
.legend li { display: flex; align-items: center; gap: 0.4rem; color: var(--soft); }
.key { width: 1.1rem; height: 0; border-top: 2.5px solid currentColor; }
.key.dashed { border-top: 2px dashed currentColor; }
.key.block { width: 0.75rem; height: 0.75rem; border: 0; border-radius: 2px; background: currentColor; }
.key.paused, .key.away { opacity: 0.6; }
.plot { padding-left: 3.2rem; }
.frame { display: block; overflow: visible; font-size: 12px; font-variant-numeric: tabular-nums; }
.frame text { fill: var(--soft); }
.grid { stroke: var(--grid); stroke-width: 1; fill: none; vector-effect: non-scaling-stroke; }
.line {
  fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linejoin: round;
  vector-effect: non-scaling-stroke;
}
.line.dashed { stroke-width: 1.4; stroke-dasharray: 5 4; }
.area { fill: currentColor; fill-opacity: 0.14; }
.bar { fill: currentColor; }
.hint { fill: transparent; }
.blue { color: var(--blue); } .green { color: var(--green); } .orange { color: var(--orange); }
.red { color: var(--red); } .violet { color: var(--violet); } .plain { color: var(--soft); }
.paused { color: var(--paused); } .away { color: var(--away); }
rect.paused, rect.away { fill: currentColor; opacity: var(--shade); }
section { padding: 0.9rem 1.2rem; }
table { width: 100%; margin-top: 0.5rem; border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.4rem 0.8rem 0.4rem 0; border-top: 1px solid var(--edge); text-align: left; vertical-align: top; }
th { border-top: 0; color: var(--soft); font-weight: normal; }
td { overflow-wrap: anywhere; }
td.id { min-width: 10rem; }
td.reason { width: 50%; }
td.line, td.error { white-space: nowrap; }
td.line, td.attempts, th:nth-child(2), th:last-child { text-align: right; font-variant-numeric: tabular-nums; }
td:last-child, th:last-child { padding-right: 0; }
@media (max-width: 40rem) {
  main, footer { padding: 1rem; }
  footer { padding-top: 0; }
  h1 { font-size: 1.3rem; }
  .facts div { display: block; padding: 0.2rem 0; }
  .numbers { grid-template-columns: repeat(2, 1fr); gap: 0.5rem; }
  figure, section { padding-left: 0.8rem; padding-right: 0.8rem; }
  .plot { padding-left: 2.9rem; }
  thead { display: none; }
  tr { display: block; padding: 0.5rem 0; border-top: 1px solid var(--edge); }
  td, td.line, td.attempts { display: flex; gap: 0.8rem; width: auto; padding: 0.1rem 0; border: 0; text-align: left; }
  td.id, td.reason { width: auto; min-width: 0; }
  td::before { content: attr(data-label); flex: 0 0 5.2rem; color: var(--soft); }
  td bdi { min-width: 0; }
}
@media print { .hint { display: none; } figure, section { break-inside: avoid; } }
""")
