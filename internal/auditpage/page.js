// The page of an audit: unpacks the report (pack.go has the format), draws the
// heat map, opens points. Whatever comes from the report is set as text, never
// as markup.
'use strict';
(() => {
  // ---- the report

  const STATES = ['outside', 'whole', 'holes', 'empty', 'not archived', 'some', 'unreadable'];
  const KINDS = ['inner', 'head', 'tail', 'empty'];
  // Classes of a day, from worst to best, as the style sheet names them. A day
  // with holes is of one of five, h5 to h1, by the share that is there.
  const CLASSES = ['outside', 'none', 'empty', 'h5', 'h4', 'h3', 'h2', 'h1', 'whole', 'some', 'unread'];
  const [OUTSIDE, NONE, EMPTY, H5, H4, H3, H2, H1, WHOLE, SOME, UNREAD] = CLASSES.keys();

  class Column {
    constructor(bytes) { this.bytes = bytes; this.at = 0; }
    uint() {
      let b = this.bytes[this.at++];
      if (b < 128) return b; // nearly all
      let value = 0;
      for (let unit = 1; ; unit *= 128) {
        if (b === undefined) throw new Error('a column ends early');
        value += (b & 127) * unit;
        if (b < 128) return value;
        b = this.bytes[this.at++];
      }
    }
    int() { return zigzag(this.uint()); }
    opt() { const n = this.uint(); return n === 0 ? null : zigzag(n - 1); }
  }
  const plus = (n, base) => n === null ? null : n + base;
  const zigzag = n => n < 2 ** 31 ? n >>> 1 ^ -(n & 1) : n % 2 === 0 ? n / 2 : -(n + 1) / 2;

  async function unpack(text) {
    let zipped;
    if (Uint8Array.fromBase64) {
      zipped = Uint8Array.fromBase64(text);
    } else { // before 2025
      const packed = atob(text);
      zipped = new Uint8Array(packed.length);
      for (let i = 0; i < packed.length; i++) zipped[i] = packed.charCodeAt(i);
    }
    const stream = new Blob([zipped]).stream().pipeThrough(new DecompressionStream('gzip'));
    const raw = new Uint8Array(await new Response(stream).arrayBuffer());
    const size = new DataView(raw.buffer).getUint32(0, true);
    const h = JSON.parse(new TextDecoder().decode(raw.subarray(4, 4 + size)));
    if (h.version !== 1) throw new Error(`the report is of version ${h.version}`);
    let from = 4 + size;
    const columns = h.columns.map(n => new Column(raw.subarray(from, from += n)));
    const pt = columns.slice(0, 17), [state, due, lack] = columns.slice(17, 20), gp = columns.slice(20);

    const n = h.names.length, days = Math.max(h.dayStarts.length - 1, 0);
    const report = {
      ...h, days, points: [],
      // of day d of point i at i * days + d
      state: new Uint8Array(n * days), present: new Int32Array(n * days), expected: new Int32Array(n * days), cls: new Uint8Array(n * days),
    };
    let id = 0;
    for (let i = 0; i < n; i++) {
      id += pt[0].int();
      const p = {
        place: i, id, name: h.names[i],
        system: h.texts[pt[1].uint()], equipment: h.texts[pt[2].uint()], unit: h.texts[pt[3].uint()],
        interval: pt[4].opt(), measured: pt[5].uint() === 1,
        from: pt[6].int() + h.dayStarts[0], to: pt[7].int() + h.dayStarts[days],
        first: pt[8].opt(), last: pt[9].opt(), expected: pt[10].opt(),
        present: pt[11].int(), missing: pt[12].int(), known: pt[13].int(),
        gapCount: pt[14].int(), longest: pt[15].int(),
        gaps: [], quality: [], notArchived: 0,
      };
      const listed = pt[16].uint();
      for (let k = i * days, before = 0; k < (i + 1) * days; k++) {
        const want = report.expected[k] = before += due.int();
        const have = report.present[k] = want - lack.int();
        const s = report.state[k] = state.bytes[k] === 0 ? likely(have, want) : state.bytes[k] - 1;
        report.cls[k] = classOf(s, have, want);
        if (s === 4) p.notArchived++;
      }
      const unit = p.interval > 0 ? p.interval : 1000;
      let at = p.from;
      for (let k = 0; k < listed; k++) {
        const kind = gp[0].uint(), g = { kind: KINDS[kind >> 1], known: (kind & 1) === 1 };
        g.from = at + gp[1].int() * unit + gp[2].int();
        const units = gp[3].int();
        g.to = at = g.from + units * unit + gp[4].int();
        g.after = plus(gp[5].opt(), g.from);
        g.before = plus(gp[6].opt(), g.to);
        g.length = g.to - g.from + gp[7].int();
        g.missing = plus(gp[8].opt(), units);
        g.note = h.texts[gp[9].uint()];
        p.gaps.push(g);
      }
      // How bad a point is: the share of it that is lost and not acknowledged.
      p.score = p.to <= p.from ? -1
        : p.expected > 0 ? (p.missing - p.known) / p.expected
          : p.longest / (p.to - p.from);
      report.points.push(p);
    }
    for (const q of h.quality) report.points[q.point].quality.push(q);
    return report;
  }

  // likely is the state of a day going by its numbers, as in pack.go.
  function likely(present, expected) {
    if (expected === 0) return present > 0 ? 5 : 0;
    return present >= expected ? 1 : present > 0 ? 2 : 3;
  }

  // By state; of days with holes, by the share that is there.
  const CLASS = [OUTSIDE, WHOLE, H3, EMPTY, NONE, SOME, UNREAD];
  function classOf(state, present, expected) {
    if (state !== 2 || expected <= 0) return CLASS[state]; // holes of nobody knows how many: in the middle
    const share = present / expected;
    return share >= 0.99 ? H1 : share >= 0.95 ? H2 : share >= 0.8 ? H3 : share >= 0.5 ? H4 : H5;
  }

  // ---- words

  const SHAPELESS = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu;
  // visible shows by their numbers the characters that have no shape of their own.
  const visible = s => s.replace(SHAPELESS, c => `⟨${c.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}⟩`);
  const nameOf = p => p.name === '' ? `point ${p.id}` : visible(p.name);
  const comma = n => n.toLocaleString('en-US');
  const count = (n, one, many = `${one}s`) => `${comma(n)} ${n === 1 ? one : many}`;
  const percent = share => `${(Math.floor(share * 1e4) / 100).toFixed(2)} %`;
  const coverage = p => p.expected > 0 ? percent(Math.max(0, p.expected - p.missing) / p.expected) : '–';

  function span(ms) {
    const units = [[86400000, 'd'], [3600000, 'h'], [60000, 'min'], [1000, 's'], [1, ms === 0 ? 's' : 'ms']];
    for (let i = 0; i < units.length; i++) {
      const [unit, name] = units[i];
      if (ms < unit) continue;
      const rest = unit > 1000 ? Math.floor(ms % unit / units[i + 1][0]) : 0;
      return `${Math.floor(ms / unit)} ${name}${rest > 0 ? ` ${rest} ${units[i + 1][1]}` : ''}`;
    }
    return `${ms} ms`;
  }

  let clock, zoneName;
  function setZone(zone) {
    const options = { hourCycle: 'h23', weekday: 'short', year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit', second: '2-digit' };
    try {
      clock = new Intl.DateTimeFormat('en-GB', { ...options, timeZone: zone });
      zoneName = zone;
    } catch { // a browser with an older list of zones
      clock = new Intl.DateTimeFormat('en-GB', { ...options, timeZone: 'UTC' });
      zoneName = 'UTC';
    }
  }
  function parts(ms) {
    const out = {};
    for (const { type, value } of clock.formatToParts(ms)) out[type] = value;
    return out;
  }
  function dateOf(ms) { const p = parts(ms); return `${p.year}-${p.month}-${p.day}`; }
  function timeOf(ms) {
    const p = parts(ms), rest = ((ms % 1000) + 1000) % 1000;
    return `${p.year}-${p.month}-${p.day} ${p.hour}:${p.minute}:${p.second}${rest ? '.' + String(rest).padStart(3, '0') : ''}`;
  }

  // make makes an element: attributes, then children, text or elements.
  function make(tag, attributes = {}, ...children) {
    const svg = ['svg', 'path', 'rect', 'line', 'defs', 'pattern', 'title', 'circle'].includes(tag);
    const e = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
    for (const [k, v] of Object.entries(attributes)) {
      if (typeof v === 'function') e.addEventListener(k, v);
      else if (v !== null && v !== false) e.setAttribute(k, v === true ? '' : v);
    }
    e.append(...children.filter(c => c !== null));
    return e;
  }
  const el = id => document.getElementById(id);

  // ---- the page

  function start(report) {
    const { points, days, cls, present, expected, state } = report;
    setZone(report.zone);

    const map = el('map'), room = el('room'), canvas = el('canvas'), tip = el('tip'), panel = el('point');
    const search = el('search'), sort = el('sort'), system = el('system');
    const ctx = canvas.getContext('2d');

    const dayText = [], dayMonth = [], dayNumber = [], dayWeek = [];
    for (let d = 0; d < days; d++) {
      const p = parts(report.dayStarts[d]);
      dayText.push(`${p.year}-${p.month}-${p.day}`);
      dayMonth.push(`${p.year}-${p.month}`);
      dayNumber.push(p.day);
      dayWeek.push(p.weekday);
    }
    function dayAt(ms) {
      let low = 0, high = days;
      while (high - low > 1) {
        const mid = (low + high) >> 1;
        if (report.dayStarts[mid] <= ms) low = mid; else high = mid;
      }
      return low;
    }
    function describe(i, d) {
      const k = i * days + d, want = expected[k], have = present[k];
      const samples = want > 0 ? `${comma(have)} of ${count(want, 'sample')} (${percent(have >= want ? 1 : have / want)})` : count(have, 'sample');
      switch (STATES[state[k]]) {
        case 'whole': return samples;
        case 'holes': return have >= want && want > 0 ? `${samples}, with a gap` : samples;
        case 'empty': return `archived, without a sample${want > 0 ? ` of ${comma(want)}` : ''}`;
        case 'not archived': return `not archived${want > 0 ? `, ${count(want, 'sample')} expected` : ''}`;
        case 'unreadable': return 'unreadable: its manifest or its file is damaged';
        case 'some': return `${samples}; nobody knows how many are due`;
      }
      return 'nothing is expected: not yet there, or retired';
    }

    // -- which points, in which order

    const byName = new Intl.Collator('en', { numeric: true });
    const rank = new Int32Array(points.length);
    [...points].sort((a, b) => byName.compare(a.name, b.name) || a.id - b.id).forEach((p, r) => { rank[p.place] = r; });
    const lower = points.map(p => p.name.toLowerCase());
    const orders = {
      worst: (a, b) => b.score - a.score || b.notArchived - a.notArchived || b.gapCount - a.gapCount || b.longest - a.longest,
      name: () => 0,
      gaps: (a, b) => b.gapCount - a.gapCount || b.score - a.score,
      longest: (a, b) => b.longest - a.longest || b.score - a.score,
    };
    const ordered = by => [...points].sort((a, b) => orders[by](a, b) || rank[a.place] - rank[b.place]);
    let rows = [], lost = new Float64Array(days), mostLost = 0;

    const systems = [...new Set(points.map(p => p.system).filter(s => s))].sort(byName.compare);
    el('system-label').hidden = systems.length < 2;
    system.append(make('option', { value: '' }, 'all systems'));
    systems.forEach((s, i) => system.append(make('option', { value: String(i + 1) }, visible(s))));

    function choose() {
      const words = search.value.toLowerCase().split(/\s+/).filter(w => w);
      const only = system.value === '' ? null : systems[Number(system.value) - 1];
      rows = ordered(sort.value).filter(p => (only === null || p.system === only) && words.every(w => lower[p.place].includes(w)));
      el('shown').textContent = rows.length === points.length ? count(rows.length, 'point') : `${comma(rows.length)} of ${count(points.length, 'point')}`;
      const have = new Float64Array(days), want = new Float64Array(days);
      for (const p of rows) {
        for (let d = 0, k = p.place * days; d < days; d++, k++) {
          want[d] += expected[k];
          have[d] += Math.min(present[k], expected[k]);
        }
      }
      lost = want.map((w, d) => w > 0 ? 1 - have[d] / w : 0);
      mostLost = lost.reduce((a, b) => Math.max(a, b), 0);
      map.hidden = rows.length === 0;
      el('nothing').hidden = rows.length > 0;
      cursor.row = Math.min(cursor.row, Math.max(rows.length - 1, 0));
      map.setAttribute('aria-rowcount', rows.length);
      map.setAttribute('aria-colcount', days);
      layout();
    }

    // -- geometry, in CSS pixels

    const cursor = { row: 0, day: 0, shown: false };
    let hover = null, dense = false, zoom = 1, open = null, openDay = null;
    const g = { w: 0, h: 0, left: 0, right: 0, top: 62, bottom: 8, row: 20, cell: 10, k: 1 };

    function layout() {
      if (map.hidden) return;
      g.row = dense ? 4 : 20;
      const full = g.top + rows.length * g.row + g.bottom;
      map.style.height = `${Math.max(120, Math.min(full, Math.max(300, Math.round(window.innerHeight * 0.74))))}px`;
      room.style.height = `${full}px`;
      room.style.width = '100%';
      const w = map.clientWidth; // less the scroll bar, now that it is there
      g.left = dense ? 14 : Math.round(w < 620 ? Math.min(150, w * 0.36) : Math.min(300, w * 0.31));
      g.right = dense ? 14 : w < 620 ? 58 : report.fast ? 78 : 122;
      const fit = Math.max((w - g.left - g.right) / Math.max(days, 1), 1.5);
      g.cell = Math.min(fit, 34) * zoom;
      const wide = g.left + days * g.cell + g.right;
      if (wide > w + 1) room.style.width = `${Math.ceil(wide)}px`;
      g.w = map.clientWidth;
      g.h = map.clientHeight;
      g.k = window.devicePixelRatio || 1;
      canvas.width = Math.round(g.w * g.k);
      canvas.height = Math.round(g.h * g.k);
      canvas.style.width = `${g.w}px`;
      canvas.style.height = `${g.h}px`;
      fitted.clear();
      draw();
    }

    // -- drawing, in device pixels

    let colors = null;
    function paint() {
      const style = getComputedStyle(document.documentElement);
      const color = name => style.getPropertyValue(`--${name}`).trim();
      const tile = (size, back, ink, mark) => {
        const t = document.createElement('canvas');
        t.width = t.height = Math.round(size * g.k);
        const c = t.getContext('2d');
        c.scale(t.width / size, t.width / size);
        c.fillStyle = back;
        c.fillRect(0, 0, size, size);
        c.strokeStyle = c.fillStyle = ink;
        mark(c, size);
        return ctx.createPattern(t, 'repeat');
      };
      colors = { k: g.k, page: color('page'), card: color('card'), ink: color('ink'), muted: color('muted'), line: color('line'), soft: color('soft'), accent: color('accent'), lost: color('h4'), font: getComputedStyle(document.body).fontFamily };
      colors.cls = CLASSES.map(name => color(name));
      colors.cls[NONE] = tile(6, color('none'), color('none-ink'), (c, s) => {
        c.lineWidth = 1.1;
        c.beginPath();
        for (const o of [-s, 0, s]) { c.moveTo(o - 1, s + 1); c.lineTo(o + s + 1, -1); }
        c.stroke();
      });
      colors.cls[UNREAD] = tile(6, color('unread'), color('unread-ink'), (c, s) => {
        c.lineWidth = 1;
        c.beginPath();
        c.moveTo(0, 0); c.lineTo(s, s); c.moveTo(s, 0); c.lineTo(0, s);
        c.stroke();
      });
      colors.cls[SOME] = tile(5, color('some'), color('some-ink'), c => {
        c.beginPath();
        c.arc(2.5, 2.5, 1, 0, 7);
        c.fill();
      });
    }

    const fitted = new Map(); // place -> name as it fits
    function fit(p, width) {
      let text = fitted.get(p.place);
      if (text !== undefined) return text;
      // The end of a name says more than its middle.
      const name = [...nameOf(p).slice(0, 400)];
      text = name.join('');
      if (ctx.measureText(text).width > width) {
        let low = 0, high = name.length;
        while (low < high) {
          const keep = (low + high + 1) >> 1;
          const head = Math.floor(keep * 0.4);
          const s = name.slice(0, head).join('') + '…' + name.slice(name.length - (keep - head)).join('');
          if (ctx.measureText(s).width <= width) { low = keep; text = s; } else high = keep - 1;
        }
        if (low === 0) text = '…';
      }
      fitted.set(p.place, text);
      return text;
    }

    let pending = 0;
    const drawSoon = () => { pending ||= requestAnimationFrame(() => { pending = 0; draw(); }); };

    function draw() {
      if (map.hidden || g.w === 0) return;
      if (colors === null || colors.k !== g.k) paint();
      const k = g.k, sx = map.scrollLeft, sy = map.scrollTop;
      const px = v => Math.round(v * k);
      const X = d => Math.round((g.left - sx + d * g.cell) * k); // left edge of a day
      const Y = r => Math.round((g.top - sy + r * g.row) * k);
      const d0 = Math.max(0, Math.floor(sx / g.cell)), d1 = Math.min(days, Math.ceil((sx + g.w - g.left - g.right) / g.cell));
      const r0 = Math.max(0, Math.floor(sy / g.row)), r1 = Math.min(rows.length, Math.ceil((sy + g.h - g.top) / g.row));
      const seam = g.cell >= 7 && !dense ? Math.max(1, Math.round(k)) : 0;
      const gapY = dense ? 0 : px(3);
      ctx.setTransform(1, 0, 0, 1, 0, 0);
      ctx.fillStyle = colors.card;
      ctx.fillRect(0, 0, canvas.width, canvas.height);
      ctx.textBaseline = 'middle';
      ctx.direction = 'ltr';

      // Cells, in runs of one class where no seam parts them.
      for (let r = r0; r < r1; r++) {
        const p = rows[r], y = Y(r), h = Math.max(1, Y(r + 1) - y - gapY), top = y + (gapY >> 1);
        if (!dense && (r === cursor.row && cursor.shown || hover && hover.row === r || p === open)) {
          ctx.fillStyle = colors.soft;
          ctx.fillRect(0, y, canvas.width, Y(r + 1) - y);
        }
        for (let d = d0, at = p.place * days; d < d1;) {
          const c = cls[at + d];
          let e = d + 1;
          if (seam === 0 || c === OUTSIDE) while (e < d1 && cls[at + e] === c) e++;
          const x = X(d), width = Math.max(1, X(e) - x - (c === OUTSIDE ? 0 : seam));
          ctx.fillStyle = colors.cls[c];
          if (c === OUTSIDE) {
            ctx.fillRect(x, top + (h >> 1), width, Math.max(1, Math.round(k / 2)));
          } else if (c === EMPTY && !dense) {
            const half = (h - Math.max(1, px(2))) >> 1; // a slit
            ctx.fillRect(x, top, width, half);
            ctx.fillRect(x, top + h - half, width, half);
          } else {
            ctx.fillRect(x, top, width, h);
          }
          d = e;
        }
      }

      const frame = (r, d, color, wide) => {
        ctx.strokeStyle = color;
        ctx.lineWidth = px(wide);
        const y = Y(r), h = Y(r + 1) - y;
        ctx.strokeRect(X(d) - px(1), y + (dense ? -px(1) : 0), Math.max(px(3), X(d + 1) - X(d)) + px(2) - seam, h + (dense ? px(2) : 0));
      };
      if (hover && hover.day !== null && hover.row < rows.length) frame(hover.row, hover.day, colors.ink, 1.25);
      if (cursor.shown) frame(cursor.row, cursor.day, colors.accent, 2);

      // What stays while the map scrolls: the names, the figures, the axis.
      const right = g.left - sx + days * g.cell, statsAt = Math.min(right + g.right, g.w);
      if (!dense) {
        ctx.fillStyle = colors.card;
        if (sx > 0) ctx.fillRect(0, 0, px(g.left - 4), canvas.height);
        if (right + g.right > g.w + 1) ctx.fillRect(px(g.w - g.right), 0, canvas.width, canvas.height);
        ctx.font = `${px(12)}px ${colors.font}`;
        for (let r = r0; r < r1; r++) {
          const p = rows[r], y = Y(r + 0.5), marked = r === cursor.row && cursor.shown || hover && hover.row === r || p === open;
          if (marked) {
            ctx.fillStyle = colors.soft;
            if (sx > 0) ctx.fillRect(0, Y(r), px(g.left - 4), Y(r + 1) - Y(r));
            if (right + g.right > g.w + 1) ctx.fillRect(px(g.w - g.right), Y(r), canvas.width, Y(r + 1) - Y(r));
          }
          if (p === open) {
            ctx.fillStyle = colors.accent;
            ctx.fillRect(0, Y(r), px(3), Y(r + 1) - Y(r));
          }
          ctx.fillStyle = marked ? colors.ink : colors.muted;
          ctx.textAlign = 'left';
          ctx.fillText(fit(p, px(g.left - 24)), px(14), y);
          ctx.textAlign = 'right';
          const end = px(statsAt - 14);
          const full = g.right > 100;
          ctx.fillStyle = marked ? colors.ink : colors.muted;
          if (full) ctx.fillText(p.gapCount > 0 ? comma(p.gapCount) : '·', end, y);
          ctx.fillText(p.expected > 0 ? percent(Math.max(0, p.expected - p.missing) / p.expected).replace(' %', '') : '–', full ? end - px(46) : end, y);
        }
      }
      ctx.fillStyle = colors.card;
      ctx.fillRect(0, 0, canvas.width, px(g.top - 2));
      head(d0, d1, X, px, statsAt);
    }

    // head draws the axis, and above it what all points shown lose each day.
    function head(d0, d1, X, px, statsAt) {
      const base = 34, high = 24;
      ctx.save();
      ctx.beginPath();
      ctx.rect(px(g.left - 1), 0, px(g.w - g.left - g.right + 9), px(g.top));
      ctx.clip();
      ctx.fillStyle = colors.line;
      ctx.fillRect(X(d0), px(base), X(d1) - X(d0), Math.max(1, Math.round(g.k)));
      ctx.fillStyle = colors.lost;
      const seam = g.cell >= 7 && !dense ? Math.max(1, Math.round(g.k)) : 0;
      for (let d = d0; d < d1; d++) {
        if (lost[d] <= 0) continue;
        const h = Math.max(1, px(high * lost[d] / mostLost));
        ctx.fillRect(X(d), px(base) - h, Math.max(1, X(d + 1) - X(d) - seam), h);
      }
      ctx.font = `${px(11)}px ${colors.font}`;
      ctx.textAlign = 'left';
      ctx.fillStyle = colors.muted;
      // Months where they begin, and as many day numbers as there is room for.
      const step = [1, 2, 5, 10, 15].find(s => s * g.cell >= 22) || 0;
      let clear = -1e9;
      for (let d = d0; d < d1; d++) {
        const begins = d === d0 || dayMonth[d] !== dayMonth[d - 1];
        if (!begins) continue;
        const x = Math.max(X(d), px(g.left));
        if (d > d0 || dayNumber[d] === '01') { ctx.fillRect(X(d), px(base + 2), Math.max(1, Math.round(g.k)), px(g.top - base - 6)); }
        if (x < clear) continue;
        let next = d + 1;
        while (next < d1 && dayMonth[next] === dayMonth[d]) next++;
        const label = monthLabel(dayMonth[d], step === 0 && g.cell * 30 < 52), width = ctx.measureText(label).width;
        if (X(next) - x < width + px(6) && next < d1) continue;
        ctx.fillText(label, x + px(step === 0 ? 4 : d > d0 || dayNumber[d] === '01' ? 4 : 0), px(step === 0 ? base + 14 : base + 9));
        clear = x + width + px(8);
      }
      if (step > 0) {
        ctx.textAlign = 'center';
        for (let d = d0; d < d1; d++) {
          const n = Number(dayNumber[d]), x = (X(d) + X(d + 1) - seam) / 2;
          if (step > 1 && (n % step !== 0 || n + step / 2 > 31) && (n !== 1 || step > 2)) continue;
          if (x + px(7) <= X(days)) ctx.fillText(String(n), x, px(base + 21));
        }
      }
      ctx.restore();
      if (dense) return;
      ctx.fillStyle = colors.card;
      ctx.fillRect(0, 0, px(g.left - 4), px(g.top - 2));
      ctx.font = `${px(11)}px ${colors.font}`;
      ctx.fillStyle = colors.muted;
      ctx.textAlign = 'left';
      if (mostLost > 0) {
        const most = `at most ${percent(mostLost)}`;
        ctx.fillText(g.left > 175 ? `missing each day, ${most}` : 'missing each day', px(14), px(base - 6));
      }
      ctx.textAlign = 'right';
      const full = g.right > 100;
      if (full) ctx.fillText('gaps', px(statsAt - 14), px(base + 21));
      ctx.fillText(full || report.fast && g.right > 60 ? 'coverage %' : '%', px(statsAt - 14) - (full ? px(46) : 0), px(base + 21));
    }
    const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
    const monthLabel = (m, short) => short ? MONTHS[Number(m.slice(5)) - 1] : `${MONTHS[Number(m.slice(5)) - 1]} ${m.slice(0, 4)}`;

    // -- pointer

    let pointer = null;
    function hit(x, y) {
      if (y < g.top - 2) return null;
      const r = Math.floor((y - g.top + map.scrollTop) / g.row);
      if (r < 0 || r >= rows.length) return null;
      const d = x < g.left || x >= g.w - g.right + 2 ? null : Math.floor((x - g.left + map.scrollLeft) / g.cell);
      return { row: r, day: d !== null && d >= 0 && d < days ? d : null };
    }
    function over() {
      const box = canvas.getBoundingClientRect();
      const now = pointer && hit(pointer.x - box.left, pointer.y - box.top);
      if (hover && now && hover.row === now.row && hover.day === now.day) { place(pointer.x, pointer.y); return; }
      hover = now;
      if (hover) showTip(hover.row, hover.day, pointer.x, pointer.y); else tip.hidden = true;
      drawSoon();
    }
    function showTip(r, d, x, y) {
      const p = rows[r];
      tip.replaceChildren(make('b', {}, make('bdi', {}, nameOf(p))));
      if (d === null) tip.append(p.expected > 0 ? `${coverage(p)} of ${count(p.expected, 'sample')}${report.fast ? '' : `, ${count(p.gapCount, 'gap')}`}` : count(p.present, 'sample'));
      else tip.append(`${dayWeek[d]} ${dayText[d]}: ${describe(p.place, d)}`);
      tip.hidden = false;
      place(x, y);
    }
    function place(x, y) {
      const w = tip.offsetWidth, h = tip.offsetHeight, space = document.documentElement.clientWidth;
      tip.style.left = `${Math.max(6, Math.min(x + 14, space - w - 6))}px`;
      tip.style.top = `${y + 20 + h > window.innerHeight ? Math.max(4, y - h - 14) : y + 20}px`;
    }
    map.addEventListener('pointermove', e => { if (e.pointerType !== 'touch') { pointer = { x: e.clientX, y: e.clientY }; over(); } });
    map.addEventListener('pointerleave', () => { pointer = null; hover = null; tip.hidden = true; drawSoon(); });
    map.addEventListener('scroll', () => { if (pointer) over(); else if (document.activeElement !== map) tip.hidden = true; drawSoon(); }, { passive: true });
    map.addEventListener('click', e => {
      const box = canvas.getBoundingClientRect(), at = hit(e.clientX - box.left, e.clientY - box.top);
      if (!at) return;
      cursor.row = at.row;
      if (at.day !== null) cursor.day = at.day;
      cursor.shown = false;
      show(rows[at.row], at.day, false);
    });

    // -- keyboard

    let cell = el('cell-a');
    function moved() {
      cursor.shown = true;
      const x = cursor.day * g.cell, y = cursor.row * g.row;
      if (y < map.scrollTop) map.scrollTop = y;
      else if (y + g.row > map.scrollTop + g.h - g.top) map.scrollTop = y + g.row - (g.h - g.top) + 2;
      if (x < map.scrollLeft) map.scrollLeft = x;
      else if (x + g.cell > map.scrollLeft + g.w - g.left - g.right) map.scrollLeft = x + g.cell - (g.w - g.left - g.right) + 2;
      // Another element each time, or a screen reader would say nothing.
      cell = cell === el('cell-a') ? el('cell-b') : el('cell-a');
      const p = rows[cursor.row];
      el('row').setAttribute('aria-rowindex', cursor.row + 1);
      el('rowheader').textContent = nameOf(p);
      cell.setAttribute('aria-colindex', cursor.day + 1);
      cell.textContent = `${nameOf(p)}, ${dayText[cursor.day]}: ${describe(p.place, cursor.day)}`;
      map.setAttribute('aria-activedescendant', cell.id);
      const box = canvas.getBoundingClientRect();
      showTip(cursor.row, cursor.day, box.left + g.left + x - map.scrollLeft + g.cell / 2, box.top + g.top + y - map.scrollTop + g.row / 2);
      drawSoon();
    }
    map.addEventListener('focus', () => { if (map.matches(':focus-visible') && rows.length > 0) moved(); });
    map.addEventListener('blur', () => { cursor.shown = false; tip.hidden = true; drawSoon(); });
    map.addEventListener('keydown', e => {
      if (rows.length === 0 || e.altKey || e.metaKey) return;
      const page = Math.max(1, Math.floor((g.h - g.top) / g.row) - 1), ends = e.ctrlKey;
      let { row, day } = cursor;
      switch (e.key) {
        case 'ArrowUp': row--; break;
        case 'ArrowDown': row++; break;
        case 'ArrowLeft': day--; break;
        case 'ArrowRight': day++; break;
        case 'PageUp': row -= page; break;
        case 'PageDown': row += page; break;
        case 'Home': day = 0; if (ends) row = 0; break;
        case 'End': day = days - 1; if (ends) row = rows.length - 1; break;
        case 'Enter': case ' ':
          e.preventDefault();
          show(rows[cursor.row], cursor.day, true);
          return;
        default: return;
      }
      e.preventDefault();
      cursor.row = Math.max(0, Math.min(rows.length - 1, row));
      cursor.day = Math.max(0, Math.min(days - 1, day));
      moved();
    });
    document.addEventListener('keydown', e => {
      const typing = e.target instanceof HTMLInputElement || e.target instanceof HTMLSelectElement;
      if (e.key === 'Escape') {
        if (open) { close(); e.preventDefault(); } else if (e.target === search) { search.value = ''; choose(); map.focus(); }
        return;
      }
      if (typing || e.ctrlKey || e.altKey || e.metaKey) return;
      switch (e.key) {
        case '/': search.focus(); search.select(); break;
        case '+': case '=': widen(1.5); break;
        case '-': case '−': widen(1 / 1.5); break;
        case 'd': thin(); break;
        default: return;
      }
      e.preventDefault();
    });

    function widen(by) {
      const middle = (map.scrollLeft + (g.w - g.left - g.right) / 2) / g.cell;
      zoom = Math.max(1, Math.min(40, zoom * by));
      layout();
      map.scrollLeft = middle * g.cell - (g.w - g.left - g.right) / 2;
      draw();
    }
    function thin() {
      dense = !dense;
      el('dense').setAttribute('aria-pressed', String(dense));
      const row = Math.floor(map.scrollTop / g.row);
      layout();
      map.scrollTop = row * g.row;
      draw();
    }

    // -- the point that is open

    function show(p, day, focus) {
      open = p;
      openDay = day;
      fill(p);
      panel.hidden = false;
      panel.scrollTop = 0;
      document.body.classList.add('open');
      tip.hidden = true;
      history.replaceState(null, '', `#p=${p.id}`);
      if (focus) panel.focus();
      panel.querySelector('tr.day')?.scrollIntoView({ block: 'nearest' });
      layout();
    }
    function close() {
      const inside = panel.contains(document.activeElement) || document.activeElement === document.body;
      const r = rows.indexOf(open);
      if (r >= 0) cursor.row = r;
      open = null;
      panel.hidden = true;
      panel.replaceChildren();
      document.body.classList.remove('open');
      history.replaceState(null, '', location.pathname + location.search);
      layout();
      if (inside) map.focus();
    }
    function step(by) {
      const r = rows.indexOf(open) + by;
      if (r < 0 || r >= rows.length) return;
      cursor.row = r;
      const y = r * g.row;
      if (y < map.scrollTop || y + g.row > map.scrollTop + g.h - g.top) map.scrollTop = y - g.row * 3;
      const focused = document.activeElement?.id;
      show(rows[r], null, false);
      if (focused) el(focused)?.focus();
    }
    function follow() {
      const m = /^#p=(-?\d+)$/.exec(location.hash);
      const p = m && points.find(q => q.id === Number(m[1]));
      if (!p) return;
      const r = rows.indexOf(p);
      if (r >= 0) { cursor.row = r; map.scrollTop = Math.max(0, (r - 3) * g.row); }
      show(p, null, false);
    }

    const fact = (dl, name, ...value) => dl.append(make('dt', {}, name), make('dd', {}, ...value));
    const when = ms => make('time', { datetime: new Date(ms).toISOString(), title: `${new Date(ms).toISOString()} (UTC)` }, timeOf(ms));

    function fill(p) {
      const r = rows.indexOf(p);
      const about = [`point ${p.id}`, p.system, p.equipment, p.unit].filter(s => s).map(visible).join(' · ');
      panel.replaceChildren(
        make('div', { class: 'head' },
          make('span', {}, r >= 0 ? `${comma(r + 1)} of ${comma(rows.length)}` : ''),
          make('button', { type: 'button', id: 'previous', 'aria-label': 'Previous point', title: 'Previous point', disabled: r <= 0, click: () => step(-1) }, '↑'),
          make('button', { type: 'button', id: 'next', 'aria-label': 'Next point', title: 'Next point', disabled: r < 0 || r === rows.length - 1, click: () => step(1) }, '↓'),
          make('button', { type: 'button', id: 'close', 'aria-label': 'Close', title: 'Close (Esc)', click: close }, '×')),
        make('h2', { id: 'point-name' }, make('bdi', {}, nameOf(p))),
        make('p', { class: 'about' }, make('bdi', {}, about)),
        make('dl', { class: 'quad' },
          ...[['Coverage', coverage(p)], ['Missing', comma(p.missing)], ...report.fast ? [] : [['Gaps', comma(p.gapCount)], ['Longest', p.longest > 0 ? span(p.longest) : '–']]]
            .map(([k, v]) => make('div', {}, make('dt', {}, k), make('dd', {}, v)))),
        make('h3', {}, 'Samples per day'), sparkline(p),
        make('h3', { id: 'gaps-title' }, 'Gaps'), gapsOf(p));
      if (p.quality.length > 0) {
        panel.append(make('h3', {}, 'Data quality'), make('ul', { class: 'findings' }, ...p.quality.map(q => make('li', { class: 'finding' },
          make('span', { class: 'tag' }, visible(q.rule)), ' ', make('bdi', {}, visible(q.text)), make('br'),
          when(q.from), ' to ', when(q.to), make('span', { class: 'none' }, `, ${count(q.samples, 'sample')}`)))));
      }
      const dl = make('dl', { class: 'facts' });
      fact(dl, 'Interval', p.interval === null ? 'unknown' : p.interval === 0 ? 'reports changes only' : `${span(p.interval)}${p.measured ? ', the median of the range' : ''}`);
      if (p.to > p.from) fact(dl, 'Looked at', when(p.from), ' to ', when(p.to)); else fact(dl, 'Looked at', 'nowhere in the range');
      fact(dl, 'First sample', p.first === null ? 'none in the range' : when(p.first));
      fact(dl, 'Last sample', p.last === null ? 'none in the range' : when(p.last));
      fact(dl, 'Expected', p.expected === null ? 'unknown' : count(p.expected, 'sample'));
      fact(dl, 'Present', count(p.present, 'sample'));
      fact(dl, 'Missing', count(p.missing, 'sample') + (p.known > 0 ? `, ${comma(p.known)} of them acknowledged` : ''));
      if (p.system) fact(dl, 'System', make('bdi', {}, visible(p.system)));
      if (p.equipment) fact(dl, 'Equipment', make('bdi', {}, visible(p.equipment)));
      if (p.unit) fact(dl, 'Unit', make('bdi', {}, visible(p.unit)));
      panel.append(make('h3', {}, `Facts, times of ${zoneName}`), dl);

      const table = make('details', {}, make('summary', {}, 'Every day as a table'));
      table.addEventListener('toggle', () => {
        if (!table.open || table.childElementCount > 1) return;
        const body = make('tbody');
        for (let d = 0, k = p.place * days; d < days; d++, k++) {
          body.append(make('tr', {}, make('th', { scope: 'row' }, `${dayWeek[d]} ${dayText[d]}`), make('td', {}, make('i', { class: `k ${CLASSES[cls[k]]}` }), ' ', STATES[state[k]]),
            make('td', { class: 'num' }, comma(present[k])), make('td', { class: 'num' }, expected[k] > 0 ? comma(expected[k]) : '–')));
        }
        table.append(make('table', { id: 'days' }, make('thead', {}, make('tr', {}, make('th', { scope: 'col' }, 'Day'), make('th', { scope: 'col' }, 'State'), make('th', { scope: 'col', class: 'num' }, 'Present'), make('th', { scope: 'col', class: 'num' }, 'Expected'))), body));
      });
      panel.append(table);
    }

    // sparkline: a bar for each day as high as its samples, the line of what is
    // expected, and below it the gaps where they are.
    function sparkline(p) {
      const W = 420, H = 64, at = p.place * days, w = W / Math.max(days, 1);
      let most = 1;
      for (let d = 0; d < days; d++) most = Math.max(most, present[at + d], expected[at + d]);
      const paths = new Map(), seam = w >= 5 ? 1 : 0;
      const add = (c, x, y, wide, high) => paths.set(c, `${paths.get(c) || ''}M${round(x)} ${round(y)}h${round(wide)}v${round(high)}h${round(-wide)}z`);
      let line = '', level = null;
      for (let d = 0; d < days; d++) {
        const c = cls[at + d], x = d * w, have = present[at + d], want = expected[at + d];
        if (c === NONE || c === UNREAD) add(c, x, 0, w, H);
        else if (c !== OUTSIDE && have > 0) { const h = Math.max(1, H * have / most); add(c, x, H - h, w - seam, h); }
        if (want > 0) {
          const y = round(H - H * want / most);
          line += level === y ? `H${round(x + w)}` : level === null ? `M${round(x)} ${y}H${round(x + w)}` : `V${y}H${round(x + w)}`;
          level = y;
        } else level = null;
      }
      const svg = make('svg', { viewBox: `0 0 ${W} ${H + 14}`, role: 'img', id: 'sparkline', 'aria-label': `Samples per day, at most ${comma(most)}; ${count(p.gaps.length, 'gap')} below it` }, patterns('s'));
      for (const [c, d] of paths) svg.append(make('path', { d, fill: fillOf(c, 's') }));
      if (line) svg.append(make('path', { d: line, fill: 'none', stroke: 'var(--ink)', 'stroke-width': 1, opacity: 0.55 }));
      svg.append(make('line', { x1: 0, x2: W, y1: H, y2: H, stroke: 'var(--none-ink)', 'stroke-width': 0.75 }));
      if (!report.fast && days > 0) {
        const t0 = report.dayStarts[0], t1 = report.dayStarts[days], T = ms => W * (ms - t0) / (t1 - t0);
        if (p.to > p.from) svg.append(make('rect', { x: T(p.from), width: Math.max(0, T(p.to) - T(p.from)), y: H + 5, height: 7, rx: 1.5, fill: 'var(--whole)' }));
        let lostPath = '', knownPath = '';
        for (const gap of p.gaps) {
          const x = T(gap.from), wide = Math.max(0.8, T(gap.to) - x), d = `M${round(x)} ${H + 5}h${round(wide)}v7h${round(-wide)}z`;
          if (gap.known) knownPath += d; else lostPath += d;
        }
        if (knownPath) svg.append(make('path', { d: knownPath, fill: 'var(--none-ink)' }));
        if (lostPath) svg.append(make('path', { d: lostPath, fill: 'var(--h5)' }));
      }
      return make('div', {}, svg, make('div', { class: 'scale' }, make('span', {}, dayText[0] || ''), make('span', {}, `at most ${count(most, 'sample')} a day`), make('span', {}, dayText[days - 1] || '')));
    }
    const round = v => Math.round(v * 100) / 100;
    function patterns(id) {
      return make('defs', {},
        make('pattern', { id: `${id}-none`, width: 5, height: 5, patternUnits: 'userSpaceOnUse' }, make('rect', { width: 5, height: 5, fill: 'var(--none)' }), make('path', { d: 'M-1 6L6 -1M-1 1L1 -1M4 6L6 4', stroke: 'var(--none-ink)', 'stroke-width': 0.9 })),
        make('pattern', { id: `${id}-unread`, width: 5, height: 5, patternUnits: 'userSpaceOnUse' }, make('rect', { width: 5, height: 5, fill: 'var(--unread)' }), make('path', { d: 'M0 0L5 5M5 0L0 5', stroke: 'var(--unread-ink)', 'stroke-width': 0.8 })),
        make('pattern', { id: `${id}-some`, width: 5, height: 5, patternUnits: 'userSpaceOnUse' }, make('rect', { width: 5, height: 5, fill: 'var(--some)' }), make('circle', { cx: 2.5, cy: 2.5, r: 1, fill: 'var(--some-ink)' })));
    }
    const fillOf = (c, id) => c === NONE || c === SOME || c === UNREAD ? `url(#${id}-${CLASSES[c]})` : `var(--${CLASSES[c]})`;

    function gapsOf(p) {
      if (report.fast) return make('p', { class: 'none', id: 'no-gaps' }, 'This audit counted from the manifests alone (--fast). Run it without --fast to list the gaps.');
      if (p.gaps.length === 0) return make('p', { class: 'none', id: 'no-gaps' }, p.gapCount > 0 ? `Its ${count(p.gapCount, 'gap')} are not listed here, to keep this page small; etl audit --json lists all.` : 'None: no silence is longer than it should be.');
      const FIRST = 200;
      let by = 'time', all = false;
      const box = make('div', { id: 'gaps' });
      const from = { inner: null, head: 'before the first sample', tail: null, empty: 'no sample' };
      const build = focus => {
        const list = [...p.gaps];
        if (by === 'length') list.sort((a, b) => b.length - a.length || a.from - b.from);
        const cut = all ? list : list.slice(0, FIRST);
        const head = (name, key, cls) => make('th', { scope: 'col', class: cls, 'aria-sort': by === key ? (key === 'time' ? 'ascending' : 'descending') : null },
          make('button', { type: 'button', id: `by-${key}`, title: 'Sort', click: () => { by = key; build(`by-${key}`); } }, name, by === key ? (key === 'time' ? ' ↑' : ' ↓') : ''));
        const body = make('tbody');
        const d0 = openDay === null ? 0 : report.dayStarts[openDay], d1 = openDay === null ? 0 : report.dayStarts[openDay + 1];
        for (const gap of cut) {
          const notes = [];
          if (gap.kind !== 'inner') notes.push(make('span', { class: 'tag' }, { head: 'from the start', tail: 'to the end', empty: 'no sample at all' }[gap.kind]));
          if (gap.known) notes.push(make('span', { class: 'tag' }, make('bdi', {}, gap.note ? `acknowledged: ${visible(gap.note)}` : 'acknowledged')));
          const row = make('tr', { class: [gap.known ? 'known' : '', gap.from < d1 && gap.to > d0 ? 'day' : ''].join(' ').trim() || null },
            make('td', { class: 'time' }, gap.after === null ? '–' : when(gap.after)),
            make('td', { class: 'time' }, gap.before === null ? '–' : when(gap.before)),
            make('td', { class: 'num' }, span(gap.length)),
            make('td', { class: 'num' }, gap.missing === null ? '–' : comma(gap.missing)));
          body.append(row);
          if (notes.length > 0) {
            for (const td of row.children) td.classList.add('noted');
            body.append(make('tr', { class: `note ${row.className}` }, make('td', { colspan: 4 }, ...notes.flatMap(n => [n, ' ']))));
          }
        }
        box.replaceChildren(make('table', { 'aria-labelledby': 'gaps-title', id: 'gap-table' },
          make('thead', {}, make('tr', {}, head('After', 'time'), make('th', { scope: 'col' }, 'Before'), head('Length', 'length', 'num'), make('th', { scope: 'col', class: 'num' }, 'Missing'))), body));
        if (cut.length < list.length) box.append(make('button', { type: 'button', class: 'more', id: 'all-gaps', click: () => { all = true; build('by-time'); } }, `Show all ${comma(list.length)}`));
        const rest = report.omitted > 0 ? p.gapCount - list.filter(x => !x.known).length : 0;
        if (rest > 0) box.append(make('p', { class: 'none' }, `${count(rest, 'shorter gap is', 'shorter gaps are')} not listed, to keep this page small; etl audit --json lists all.`));
        if (focus) el(focus)?.focus();
      };
      build();
      return box;
    }

    // -- paper

    function paper() {
      const box = el('paper');
      if (box.childElementCount > 0) return;
      const MOST = 45, worst = ordered('worst').slice(0, MOST);
      const W = 400, H = 10, w = W / Math.max(days, 1);
      const body = make('tbody');
      for (const p of worst) {
        const paths = new Map(), at = p.place * days;
        for (let d = 0; d < days;) {
          const c = cls[at + d];
          let e = d + 1;
          while (e < days && cls[at + e] === c) e++;
          const x = round(d * w), wide = round((e - d) * w);
          const y = c === OUTSIDE ? 4.6 : 0, high = c === OUTSIDE ? 0.8 : H;
          let path = `M${x} ${y}h${wide}v${high}h${-wide}z`;
          if (c === EMPTY) path = `M${x} 0h${wide}v4.2h${-wide}zM${x} 5.8h${wide}v4.2h${-wide}z`;
          paths.set(c, (paths.get(c) || '') + path);
          d = e;
        }
        const svg = make('svg', { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: 'none' });
        for (const [c, d] of paths) svg.append(make('path', { d, fill: fillOf(c, 'paper') }));
        body.append(make('tr', {}, make('td', { class: 'name' }, make('bdi', {}, nameOf(p))), make('td', { class: 'strip' }, svg),
          make('td', { class: 'num' }, coverage(p)), make('td', { class: 'num' }, comma(p.missing)),
          ...report.fast ? [] : [make('td', { class: 'num' }, comma(p.gapCount)), make('td', { class: 'num' }, p.longest > 0 ? span(p.longest) : '–')]));
      }
      box.append(
        make('svg', { width: 0, height: 0 }, patterns('paper')),
        make('h2', {}, points.length > MOST ? `The ${MOST} worst of ${count(points.length, 'point')}` : 'All points, worst first'),
        make('table', {}, make('thead', {}, make('tr', {}, make('th', {}, 'Point'), make('th', {}, `${dayText[0]} to ${dayText[days - 1]}`), make('th', { class: 'num' }, 'Coverage'), make('th', { class: 'num' }, 'Missing'),
          ...report.fast ? [] : [make('th', { class: 'num' }, 'Gaps'), make('th', { class: 'num' }, 'Longest')])), body));
    }

    // -- begin

    let typing = 0;
    search.addEventListener('input', () => { clearTimeout(typing); typing = setTimeout(() => { map.scrollTop = 0; cursor.row = 0; choose(); }, 60); });
    search.addEventListener('keydown', e => { if (e.key === 'Enter' || e.key === 'ArrowDown') { e.preventDefault(); clearTimeout(typing); choose(); map.focus(); } });
    for (const s of [sort, system]) s.addEventListener('change', () => { map.scrollTop = 0; cursor.row = 0; choose(); });
    el('clear').addEventListener('click', () => { search.value = ''; choose(); search.focus(); });
    el('wider').addEventListener('click', () => widen(1.5));
    el('narrower').addEventListener('click', () => widen(1 / 1.5));
    el('dense').addEventListener('click', thin);
    window.addEventListener('hashchange', follow);
    window.addEventListener('resize', layout);
    window.addEventListener('beforeprint', paper);
    matchMedia('print').addEventListener('change', paper);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { paint(); draw(); });
    (window.requestIdleCallback || setTimeout)(paper);
    choose();
    follow();
  }

  // broken says what keeps the map from being drawn; the words stay.
  function broken(err) {
    const p = el('broken');
    if (p) {
      p.textContent = typeof DecompressionStream === 'undefined'
        ? 'This browser is too old to draw the map: it needs DecompressionStream (Chrome 80, Firefox 113, Safari 16.4).'
        : `The map can not be drawn: ${err.message}`;
      p.hidden = false;
    }
    document.documentElement.dataset.ready = 'broken';
  }

  unpack(el('data').textContent).then(report => {
    window.audit = report; // for the curious, in the console
    if (el('map')) start(report);
    document.documentElement.dataset.ready = 'yes';
    performance.mark('ready');
  }).catch(err => { broken(err); throw err; });
})();
