"""The look of the report, on screen and on paper."""

CSS = """
:root { --ink:#1f2933; --soft:#52606d; --faint:#7b8794; --rule:#dde2e7; --wash:#f5f7f9;
        --accent:#0b4f7c; }
* { box-sizing:border-box; }
html { -webkit-text-size-adjust:100%; }
body { margin:0; background:#fff; color:var(--ink);
       font:15px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif; }
main, header.top, footer { max-width:1080px; margin:0 auto; padding:0 28px; }
header.top { padding-top:40px; }
.kicker { font-size:12px; letter-spacing:.09em; text-transform:uppercase; color:var(--faint);
          font-weight:600; margin:0; }
h1 { font-size:29px; line-height:1.2; font-weight:650; margin:4px 0 6px; overflow-wrap:anywhere; }
h2 { font-size:19px; font-weight:650; margin:46px 0 4px; padding-top:14px;
     border-top:1px solid var(--rule); }
h3 { font-size:15px; font-weight:650; margin:0 0 4px; }
p { margin:6px 0; } .note { color:var(--soft); max-width:74ch; } .empty { color:var(--faint); }
a { color:var(--accent); }
nav { margin:18px 0 0; font-size:13.5px; display:flex; flex-wrap:wrap; gap:4px 18px; }
nav a { text-decoration:none; } nav a:hover { text-decoration:underline; }
.verdict { display:flex; gap:20px; margin:22px 0 6px; padding:20px 24px; border-radius:6px;
           border:1px solid var(--rule); border-left:7px solid; background:var(--wash); }
.verdict .light { flex:none; width:44px; height:44px; border-radius:50%; color:#fff; display:flex;
                  align-items:center; justify-content:center; font-size:24px; font-weight:700; }
.verdict h2 { border:0; padding:0; margin:0 0 4px; font-size:21px; }
.verdict ul { margin:4px 0 8px; padding-left:19px; } .verdict h3 { margin-top:10px; }
.good { border-left-color:#1b7f5c !important; background:#eff8f4; } .good .light { background:#1b7f5c; }
.unsure { border-left-color:#b7791f !important; background:#fdf8ec; } .unsure .light { background:#b7791f; }
.bad { border-left-color:#b42318 !important; background:#fdf1ef; } .bad .light { background:#b42318; }
.plain { border-left-color:#64748b !important; } .plain .light { background:#64748b; }
dl.facts { display:flex; flex-wrap:wrap; gap:1px; margin:18px 0 0;
           background:var(--rule); border:1px solid var(--rule); border-radius:6px; overflow:hidden; }
dl.facts div { background:#fff; padding:11px 15px; flex:1 1 22%; min-width:150px; }
dl.facts dt { color:var(--soft); font-size:12.5px; }
dl.facts dd { margin:0; font-size:20px; font-weight:600; font-variant-numeric:tabular-nums; }
dl.facts dd small { font-size:12.5px; font-weight:400; color:var(--soft); display:block; line-height:1.35; }
figure { margin:14px 0 0; break-inside:avoid; } figure img { display:block; width:100%; height:auto; }
sub { line-height:0; }
figcaption { color:var(--soft); font-size:13.5px; line-height:1.45; max-width:78ch; margin-top:2px; }
.pair { display:grid; grid-template-columns:1fr 1fr; gap:16px 34px; }
.dark img { border-radius:4px; }
.tiles { display:grid; gap:4px; align-items:center; background:#000; color:#e8ebef; padding:12px;
         border-radius:6px; font-size:13px; margin-top:12px; -webkit-print-color-adjust:exact;
         print-color-adjust:exact; break-inside:avoid; }
.tiles .head { text-align:center; color:#b0b8c1; font-size:12.5px; padding-bottom:2px; }
.tiles .name { font-weight:600; overflow-wrap:anywhere; padding-right:6px; }
.tiles .none { color:#b0b8c1; padding:14px 0; }
.tiles img { display:block; width:100%; }
.scroll { overflow:auto; max-height:460px; border:1px solid var(--rule); border-radius:6px; margin-top:12px; }
table { border-collapse:collapse; width:100%; font-size:13.5px; font-variant-numeric:tabular-nums; }
th, td { text-align:left; padding:5px 10px; border-bottom:1px solid #edf0f2; vertical-align:top; }
thead th { position:sticky; top:0; background:var(--wash); font-weight:600; font-size:12.5px;
           color:var(--soft); border-bottom:1px solid var(--rule); white-space:nowrap; z-index:1; }
tbody tr:last-child > * { border-bottom:0; } tbody th { font-weight:500; }
td.number { text-align:right; } td.id { font-weight:500; white-space:nowrap; }
td.yes { color:#14664a; white-space:nowrap; } td.missing { color:var(--faint); background:#f1f3f5; }
td.problem { background:#fdecea; color:#8f1d14; } tr.out td.id { color:#8f1d14; }
td.said { min-width:180px; }
td .sub { display:block; color:var(--soft); font-size:12px; } td.problem .sub { color:#8f1d14; }
.tag { display:inline-block; border-radius:3px; padding:0 7px; font-size:12px; background:#e6eef5;
       color:#123f61; white-space:nowrap; }
.tag.validation { background:#fbe9dc; color:#7c3206; } .tag.left { background:#fdecea; color:#8f1d14; }
.groups { display:grid; grid-template-columns:repeat(auto-fill,minmax(310px,1fr)); gap:22px 34px;
          margin-top:12px; }
.groups section { break-inside:avoid; } .groups td:first-child { color:var(--soft); width:46%; }
.groups td { overflow-wrap:anywhere; padding:4px 8px 4px 0; }
code { font:12.5px/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace; overflow-wrap:anywhere; }
.swatch { display:inline-block; width:13px; height:13px; border-radius:2px; vertical-align:-1px;
          margin-right:8px; border:1px solid rgba(0,0,0,.15); print-color-adjust:exact;
          -webkit-print-color-adjust:exact; }
.message { border-left:4px solid #b7791f; padding:4px 14px; margin:8px 0; background:#fdf8ec; }
.message.error { border-color:#b42318; background:#fdf1ef; }
footer { margin-top:48px; padding-bottom:40px; color:var(--faint); font-size:12.5px; }
@media screen and (max-width:760px) {
  .pair { grid-template-columns:1fr; } main, header.top, footer { padding:0 16px; }
}
@media print {
  @page { margin:14mm; }
  body { font-size:10pt; } nav { display:none; } main, header.top, footer { max-width:none; padding:0; }
  .scroll { max-height:none; overflow:visible; } thead th { position:static; }
  h2, h3 { break-after:avoid; } .pair { gap:8px 20px; } h2 { margin-top:24px; } tr { break-inside:avoid; }
  table { font-size:8pt; } th, td { padding:3px 6px; white-space:normal !important; }
  td .sub { white-space:normal !important; font-size:7pt; } td.said { min-width:0; }
  .verdict, td, .tag { print-color-adjust:exact; -webkit-print-color-adjust:exact; }
}
"""
