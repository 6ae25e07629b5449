"""The look of the report's page: light, dark and on paper. Nothing is loaded from anywhere."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark;
  --page:#f6f7f9; --card:#ffffff; --ink:#1b2130; --soft:#5b6475; --line:#d9dde5; --band:#f4f5f8; --grid:#e7eaf0;
  --good:#1a7f5a; --good-back:#e5f4ee; --bad:#b3202d; --bad-back:#fcebec; --warn:#8f5500; --warn-back:#fdf1de;
  --info:#2459ad; --info-back:#e8effb; --people:#5f37ab; --people-bar:#7a4fc9; --asking:#b79bea;
  --late:#b86e00; --bad-bar:#c62f3b; --run:#2f6fd0; --outline:#7d8594; }
@media (prefers-color-scheme: dark) { :root {
  --page:#12151c; --card:#1a1f29; --ink:#e7eaf0; --soft:#a3acbd; --line:#333b4a; --band:#1f2531; --grid:#2a313e;
  --good:#4cc493; --good-back:#15332a; --bad:#ff8d93; --bad-back:#3d1c21; --warn:#f0b35a; --warn-back:#3a2a12;
  --info:#8db8ff; --info-back:#1b2b47; --people:#c0a4f5; --people-bar:#a07ce6; --asking:#6c529f;
  --late:#e09a36; --bad-bar:#f0656f; --run:#5b95ee; --outline:#8791a3; } }
* { box-sizing:border-box }
body { margin:0; background:var(--page); color:var(--ink); font:15px/1.5 system-ui,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif; }
main { max-width:1180px; margin:0 auto; padding:28px 24px 48px; }
h1 { font-size:26px; line-height:1.25; margin:10px 0 4px; overflow-wrap:anywhere; }
h2 { font-size:17px; margin:0 0 10px; overflow-wrap:anywhere; }
h3 { font-size:15px; margin:18px 0 6px; overflow-wrap:anywhere; }
p { margin:4px 0; overflow-wrap:anywhere; }
.sub { color:var(--soft); font-weight:400; }
.badge { display:inline-block; padding:3px 12px; border-radius:4px; font-weight:700; font-size:14px; letter-spacing:.04em; text-transform:uppercase; }
.mode { display:inline-block; margin-left:8px; padding:2px 9px; border:1px solid var(--line); border-radius:4px; font-size:13px; color:var(--soft); }
.good { background:var(--good-back); color:var(--good); } .bad { background:var(--bad-back); color:var(--bad); }
.warn { background:var(--warn-back); color:var(--warn); } .info { background:var(--info-back); color:var(--info); }
.say { padding:10px 14px; border-radius:6px; margin:12px 0 0; }
.figures { display:grid; grid-template-columns:repeat(4,1fr); gap:12px; margin:20px 0; }
.figure, section { background:var(--card); border:1px solid var(--line); border-radius:8px; }
.figure { padding:12px 16px; } section { padding:18px 20px; margin:0 0 16px; }
.figure b { display:block; font-size:25px; line-height:1.25; font-variant-numeric:tabular-nums; }
.figure span { color:var(--soft); font-size:13px; } .figure .name { text-transform:uppercase; letter-spacing:.05em; font-size:12px; }
.ok b { color:var(--good); } .no b { color:var(--bad); }
.parts { display:flex; height:22px; border-radius:4px; overflow:hidden; margin:4px 0 8px; background:var(--band); }
.parts i { min-width:2px; } .detection { background:var(--outline); } .decision { background:var(--people-bar); }
.automation { background:var(--run); } .verification { background:var(--good); }
.key { display:flex; flex-wrap:wrap; gap:4px 20px; color:var(--soft); font-size:13px; margin:0; padding:0; list-style:none; }
.key i { display:inline-block; width:14px; height:10px; border-radius:2px; margin-right:6px; vertical-align:0; }
.key b { color:var(--ink); font-weight:600; font-variant-numeric:tabular-nums; }
.bar-done { background:var(--good); } .bar-late { background:var(--late); } .bar-bad { background:var(--bad-bar); }
.bar-people { background:var(--people-bar); } .bar-run { background:var(--run); } .bar-budget { border:1.5px solid var(--outline); }
.bar-rto { border-left:3px dashed var(--bad-bar); border-radius:0 !important; width:3px !important; }
.chart { margin:6px 0 12px; overflow-x:auto; } svg { display:block; width:100%; min-width:760px; height:auto; font-family:inherit; }
svg .done { fill:var(--good); } svg .late { fill:var(--late); } svg .bad { fill:var(--bad-bar); background:none; } svg .running { fill:var(--run); }
svg .idle { fill:var(--outline); } svg .people { fill:var(--people-bar); } svg .asking { fill:var(--asking); stroke:var(--people-bar); }
svg .budget { fill:none; stroke:var(--outline); stroke-width:1.1; pointer-events:all; } svg .band { fill:var(--band); }
svg .rule { stroke:var(--line); } svg .grid { stroke:var(--grid); } svg .mark { stroke:var(--soft); stroke-dasharray:2 3; }
svg .rto { stroke:var(--bad-bar); stroke-width:2; stroke-dasharray:6 6; }
svg .text, svg .strong { fill:var(--ink); } svg .strong { font-weight:600; } svg .soft { fill:var(--soft); }
svg .bad-text { fill:var(--bad); font-weight:600; } svg .people-text { fill:var(--people); }
svg .forecast { fill:none; stroke:var(--run); stroke-width:2.5; stroke-linejoin:round; }
table { border-collapse:collapse; width:100%; font-size:14px; } caption { text-align:left; color:var(--soft); padding:0 0 6px; font-size:13px; }
th { text-align:left; font-weight:600; color:var(--soft); font-size:12px; white-space:nowrap; }
th, td { padding:6px 12px 6px 0; border-bottom:1px solid var(--line); vertical-align:top; overflow-wrap:anywhere; }
tbody tr:last-child td, tbody tr:last-child th { border-bottom:0; }
td.n, th.n { text-align:right; white-space:nowrap; font-variant-numeric:tabular-nums; overflow-wrap:normal; }
td.t { white-space:nowrap; font-variant-numeric:tabular-nums; } tbody th { color:var(--ink); font-size:14px; white-space:normal; min-width:7em; }
.tag { font-size:12px; font-weight:600; padding:1px 8px; border-radius:4px; white-space:nowrap; } .none { color:var(--soft); }
.wide { overflow-x:auto; } ul { margin:4px 0; padding-left:20px; } li { overflow-wrap:anywhere; }
code, .code { font:13px/1.5 ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace; overflow-wrap:anywhere; }
dl { display:grid; grid-template-columns:max-content 1fr; gap:4px 18px; margin:0; } dt { color:var(--soft); } dd { margin:0; overflow-wrap:anywhere; }
details summary { cursor:pointer; color:var(--soft); font-size:13px; margin:4px 0; }
@media (max-width:760px) { .figures { grid-template-columns:1fr 1fr; } main { padding:16px 12px; } }
@media print { :root { color-scheme:light;
  --page:#fff; --card:#fff; --ink:#000; --soft:#444; --line:#bbb; --band:#f4f5f8; --grid:#e2e2e2; --good:#0f6848; --good-back:#fff;
  --bad:#a01722; --bad-back:#fff; --warn:#6e4100; --warn-back:#fff; --info:#173f80; --info-back:#fff; --people:#4c2a90;
  --people-bar:#7a4fc9; --asking:#b79bea; --late:#b86e00; --bad-bar:#c62f3b; --run:#2f6fd0; --outline:#7d8594; }
  @page { margin:14mm 12mm; } body { font-size:11px; } main { max-width:none; padding:0; }
  * { -webkit-print-color-adjust:exact; print-color-adjust:exact; } section, .figure { border-radius:0; break-inside:auto; padding:10px 12px; }
  .figure, tr, h2, h3, li, .parts { break-inside:avoid; } h2, h3 { break-after:avoid; } .badge { border:1.5px solid; } .chart { break-inside:avoid; overflow:visible; }
  h1 { font-size:20px; } h2 { font-size:13px; } h3 { font-size:11.5px; } .figures { grid-template-columns:repeat(4,1fr); gap:8px; margin:12px 0; }
  .figure b { font-size:17px; } .figure span, .figure .name, .key, caption, .tag, code, .code { font-size:10px !important; } section { margin-bottom:10px; }
  .chart.long { break-inside:auto; } svg { min-width:0; } table, th, td { font-size:10.5px !important; } thead { display:table-header-group; } }
"""
