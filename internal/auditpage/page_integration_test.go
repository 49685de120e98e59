//go:build integration

package auditpage

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image/color"
	"image/png"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/dustin/go-humanize"

	"etl/jobs"
)

// browser starts headless Chromium with an empty profile, and the context of it.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		const missing = "chromium is missing: install it (apt-get install chromium)"
		if os.Getenv("ETL_NEED_SERVERS") == "1" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	// Not t.TempDir: Chromium's last helpers may still write when it is removed.
	profile, err := os.MkdirTemp("", "auditpage")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 50 {
			if err = os.RemoveAll(profile); err == nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Error(err)
	})
	opts := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(path), chromedp.UserDataDir(profile), chromedp.NoSandbox, chromedp.DisableGPU)
	for _, f := range []string{"disable-quic", "disable-component-update", "hide-scrollbars"} {
		opts = append(opts, chromedp.Flag(f, true))
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return ctx
}

// tab is a tab of the browser with a page in it. The test fails if that page
// logs anything, throws, opens a dialog or requests anything but itself.
type tab struct {
	t   *testing.T
	ctx context.Context
	url string
}

func open(t *testing.T, in context.Context, html string, wide, high int64, steps ...chromedp.Action[chromedp.Void]) *tab {
	t.Helper()
	file := filepath.Join(t.TempDir(), "audit.html")
	if err := os.WriteFile(file, []byte(html), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := chromedp.NewContext(in)
	t.Cleanup(cancel)
	p := &tab{t, ctx, (&url.URL{Scheme: "file", Path: file}).String()}

	var mu sync.Mutex
	var said []string
	err := chromedp.Listen(ctx, func(ev any) {
		var s string
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			s = fmt.Sprintf("exception: %s %+v", ev.ExceptionDetails.Text, ev.ExceptionDetails.Exception)
		case *runtime.EventConsoleAPICalled:
			s = fmt.Sprintf("console: %s %+v", ev.Type, ev.Args)
		case *log.EventEntryAdded:
			s = fmt.Sprintf("log: %s %s %s", ev.Entry.Level, ev.Entry.Text, ev.Entry.URL)
		case *page.EventJavascriptDialogOpening:
			s = "dialog: " + ev.Message
		case *network.EventRequestWillBeSent:
			if u := ev.Request.URL; u != p.url && u != "about:blank" {
				s = "request: " + u
			}
		}
		if s != "" {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, s)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range said {
			t.Error(s)
		}
	})
	p.do(chromedp.EmulateViewport(wide, high))
	p.do(steps...)
	p.do(chromedp.Navigate(p.url))
	p.ready()
	return p
}

func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatal(err)
	}
}

func eval[T any](p *tab, js string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](js))
	if err != nil {
		p.t.Fatalf("%s: %v", js, err)
	}
	return v
}

// await waits until an expression is true.
func (p *tab) await(js string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
	defer cancel()
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool](js, chromedp.WithPollingInterval(20*time.Millisecond))); err != nil {
		p.t.Fatalf("%s: %v; the page says %q", js, err, eval[string](p, `document.documentElement.dataset.ready + ' ' + (document.getElementById('broken')?.textContent || '')`))
	}
}

func (p *tab) ready() {
	p.t.Helper()
	p.await(`document.documentElement.dataset.ready !== undefined`)
	if got := eval[string](p, `document.documentElement.dataset.ready`); got != "yes" {
		p.t.Fatalf("the page is %s", got)
	}
}

func (p *tab) keys(keys string, opts ...chromedp.KeyOption) { p.do(chromedp.KeyEvent(keys, opts...)) }

// slash presses that key as a keyboard does: chromedp would type the character
// even where the page took the key.
func (p *tab) slash() {
	p.t.Helper()
	for _, kind := range []input.DispatchKeyEventType{input.DispatchKeyEventTypeKeyDown, input.DispatchKeyEventTypeKeyUp} {
		k := input.DispatchKeyEventParams{Type: kind, Key: "/", Code: "Slash", WindowsVirtualKeyCode: 191}
		if kind == input.DispatchKeyEventTypeKeyDown {
			k.Text = "/"
		}
		if _, err := chromedp.Call(p.ctx, input.DispatchKeyEvent, k); err != nil {
			p.t.Fatal(err)
		}
	}
	p.await(`document.activeElement.id === 'search'`)
}

func (p *tab) text(css string) string {
	p.t.Helper()
	return eval[string](p, `(document.querySelector('`+css+`')?.textContent ?? 'no `+css+`')`)
}

// table reads the cells of a table's body.
func (p *tab) table(css string) [][]string {
	p.t.Helper()
	return eval[[][]string](p, `[...document.querySelectorAll('`+css+` tbody tr')].map(r => [...r.cells].map(c => c.textContent))`)
}

// shot takes a picture of the page, which -artifacts keeps.
func (p *tab) shot(name string) []byte {
	p.t.Helper()
	b, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	file := filepath.Join(p.t.ArtifactDir(), name+".png")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		p.t.Fatal(err)
	}
	p.t.Logf("picture: %s", file)
	return b
}

// media makes the page believe that it is shown on paper, or in the dark.
func media(kind, scheme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: kind, Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return err
	})
}

// cpuTime makes cpu tell the processor's time and not the clock's.
func cpuTime() chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := chromedp.Call(ctx, performance.Enable, performance.EnableParams{TimeDomain: performance.EnableTimeDomainThreadTicks})
		return err
	})
}

// cpu is how many seconds the thread of the page has worked.
func (p *tab) cpu() float64 {
	p.t.Helper()
	r, err := chromedp.Call(p.ctx, performance.GetMetrics, cdp.Empty{})
	if err != nil {
		p.t.Fatal(err)
	}
	for _, m := range r.Metrics {
		if m.Name == "TaskDuration" {
			return m.Value
		}
	}
	p.t.Fatal("no TaskDuration")
	return 0
}

// colors counts the pixels of each color of a picture.
func colors(t *testing.T, b []byte) map[color.RGBA]int {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	n := make(map[color.RGBA]int)
	for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y++ {
		for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x++ {
			n[color.RGBAModel.Convert(img.At(x, y)).(color.RGBA)]++
		}
	}
	return n
}

// shows checks that a picture has the colors of the style sheet's names.
func (p *tab) shows(picture []byte, names ...string) {
	p.t.Helper()
	n := colors(p.t, picture)
	for _, name := range names {
		var c color.RGBA
		hex := eval[string](p, `getComputedStyle(document.documentElement).getPropertyValue('--`+name+`').trim()`)
		if len(hex) == 4 {
			hex = "#" + strings.Repeat(hex[1:2], 2) + strings.Repeat(hex[2:3], 2) + strings.Repeat(hex[3:4], 2)
		}
		if _, err := fmt.Sscanf(hex, "#%02x%02x%02x", &c.R, &c.G, &c.B); err != nil {
			p.t.Fatalf("--%s is %q: %v", name, hex, err)
		}
		c.A = 255
		if n[c] < 200 {
			p.t.Errorf("--%s (%s) covers %d pixels", name, hex, n[c])
		}
	}
}

// fits checks that nothing is wider than the window.
func (p *tab) fits() {
	p.t.Helper()
	for _, e := range []string{"document.documentElement", "document.body", "document.getElementById('main')", "document.getElementById('point')"} {
		if got := eval[[]int](p, `[`+e+`.scrollWidth, `+e+`.clientWidth]`); got[0] > got[1] {
			p.t.Errorf("%s is %d wide in %d", e, got[0], got[1])
		}
	}
}

// worst is the order of the map, computed by its rule.
func worst(r *jobs.AuditReport) func(i, j int) bool {
	score := func(p jobs.AuditPoint) float64 {
		switch {
		case p.To <= p.From:
			return -1
		case p.Expected != nil && *p.Expected > 0:
			return float64(p.Missing-p.Known) / float64(*p.Expected)
		}
		return float64(p.Longest) / float64(p.To-p.From)
	}
	return func(i, j int) bool { return score(r.Points[i]) >= score(r.Points[j]) }
}

// gapRows are the rows of the table of a point's gaps, in order of time.
func gapRows(r *jobs.AuditReport, id int32) [][]string {
	loc, _ := time.LoadLocation(r.Zone)
	at := func(ms *int64) string {
		if ms == nil {
			return "–"
		}
		return strings.TrimSuffix(time.UnixMilli(*ms).In(loc).Format("2006-01-02 15:04:05.000"), ".000")
	}
	var rows [][]string
	for _, g := range r.Gaps {
		if g.PointID != id {
			continue
		}
		missing := "–"
		if g.Missing != nil {
			missing = humanize.Comma(*g.Missing)
		}
		rows = append(rows, []string{at(g.After), at(g.Before), span(g.Length), missing})
	}
	return rows
}

// gapTable is the table on the page without its lines of notes.
func (p *tab) gapTable() [][]string {
	rows := p.table("#gap-table")
	return slices.DeleteFunc(rows, func(r []string) bool { return len(r) == 1 })
}

func (p *tab) wantGaps(r *jobs.AuditReport, id int32) {
	p.t.Helper()
	want := gapRows(r, id)
	if got := p.gapTable(); len(want) == 0 || !reflect.DeepEqual(got, want) {
		p.t.Errorf("gaps of point %d\n got %v\nwant %v", id, got, want)
	}
}

func TestIntegrationPage(t *testing.T) {
	ctx := browser(t)
	small := fleet(200, 40, "Europe/Berlin", 11)
	small.Warnings = []string{"points.json is older than the manifest of 2025-02"}

	t.Run("data", func(t *testing.T) {
		p := open(t, ctx, render(t, small, Options{}), 1280, 900)
		raw := eval[string](p, `JSON.stringify({
			points: audit.points.map(p => ({point_id: p.id, point_name: p.name, system: p.system, equipment: p.equipment, unit: p.unit, interval_ms: p.interval, interval_measured: p.measured,
				from: p.from, to: p.to, first: p.first, last: p.last, expected: p.expected, present: p.present, missing: p.missing, known_missing: p.known, gaps: p.gapCount, longest_gap_ms: p.longest,
				days: Array.from({length: audit.days}, (_, d) => { const k = p.place * audit.days + d; return {state: ['outside', 'whole', 'holes', 'empty', 'not archived', 'some', 'unreadable'][audit.state[k]], present: audit.present[k], expected: audit.expected[k]}; })})),
			gaps: audit.points.flatMap(p => p.gaps.map(g => ({point_id: p.id, point_name: p.name, kind: g.kind, after: g.after, before: g.before, from: g.from, to: g.to, length_ms: g.length, missing: g.missing, known: g.known, note: g.note}))),
			quality: audit.points.flatMap(p => p.quality.map(q => ({point_id: p.id, point_name: p.name, rule: q.rule, from: q.from, to: q.to, samples: q.samples, value: q.value, limit: q.limit, text: q.text})))})`)
		var got jobs.AuditReport
		if err := json.Unmarshal([]byte(raw), &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.Points, small.Points) || !reflect.DeepEqual(got.Gaps, small.Gaps) || !reflect.DeepEqual(got.Quality, small.Quality) {
			t.Error("what the script unpacks is not the report")
		}
	})

	t.Run("light", func(t *testing.T) {
		p := open(t, ctx, render(t, small, Options{}), 1280, 900)
		p.fits()
		p.shows(p.shot("light"), "page", "card", "whole", "h2", "h3", "h4", "h5", "empty")
		if got := p.text("#shown"); got != "200 points" {
			t.Errorf("shown: %q", got)
		}
		if h1 := p.text("h1"); h1 != "2025-01-12 to 2025-02-20 (40 days of Europe/Berlin)" {
			t.Errorf("h1: %q", h1)
		}
		box := eval[[]float64](p, `(b => [b.left, b.top, b.width])(document.getElementById('canvas').getBoundingClientRect())`)

		// The pointer over a cell tells its point, day and samples.
		x, y := box[0]+box[2]*0.6, box[1]+62+10
		p.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, x, y))
		p.await(`!document.getElementById('tip').hidden`)
		tip := p.text("#tip")

		// A click opens the worst point, and its gaps are those of the report.
		p.do(chromedp.MouseClickXY(x, y))
		p.await(`!document.getElementById('point').hidden`)
		i := slices.IndexFunc(small.Points, func(a jobs.AuditPoint) bool { return a.Name == p.text("#point-name") })
		if i < 0 {
			t.Fatalf("opened %q", p.text("#point-name"))
		}
		for j := range small.Points {
			if !worst(small)(i, j) {
				t.Errorf("%s is worse than the first of the map", small.Points[j].Name)
			}
		}
		a := &small.Points[i]
		p.wantGaps(small, a.ID)
		if got := eval[string](p, `location.hash`); got != fmt.Sprintf("#p=%d", a.ID) {
			t.Errorf("hash %q", got)
		}
		loc, _ := time.LoadLocation(small.Zone)
		told := false
		for d, day := range a.Days {
			if strings.Contains(tip, time.UnixMilli(small.DayStarts[d]).In(loc).Format("Mon 2006-01-02: ")) {
				told = true
				want := fmt.Sprintf("%s of %s", humanize.Comma(int64(day.Present)), count(int64(day.Expected), "sample"))
				if day.State == jobs.DayEmpty {
					want = "archived, without a sample of 1,440"
				}
				if !strings.Contains(tip, want) || !strings.HasPrefix(tip, a.Name) {
					t.Errorf("tip %q, want %q", tip, want)
				}
			}
		}
		if !told {
			t.Errorf("tip %q names no day", tip)
		}
		p.fits()
		p.shot("open")

		// Every day is in a real table.
		p.do(chromedp.Click(chromedp.CSS("#point summary")))
		p.await(`document.querySelectorAll('#days tbody tr').length === 40`)
		days := p.table("#days")
		for d, day := range a.Days {
			if got := strings.TrimSpace(days[d][1]); got != string(day.State) {
				t.Errorf("day %d is %q in the table, %q in the report", d, got, day.State)
			}
		}
		p.do(chromedp.Click(chromedp.CSS("#close")))
		p.await(`document.getElementById('point').hidden && location.hash === ''`)
	})

	t.Run("keyboard", func(t *testing.T) {
		p := open(t, ctx, render(t, small, Options{}), 1280, 900)
		// / and a name, Enter into the map, Enter opens, Esc closes.
		a := small.Points[slices.IndexFunc(small.Points, func(a jobs.AuditPoint) bool { return a.Gaps > 20 })]
		p.slash()
		p.keys(strings.ToUpper(a.Name))
		p.await(`document.getElementById('shown').textContent.includes(' of 200 points')`)
		p.keys(kb.Enter)
		p.await(`document.activeElement.id === 'map'`)
		for _, k := range []string{kb.Home, kb.ArrowRight, kb.ArrowRight, kb.ArrowRight, kb.ArrowLeft} {
			p.keys(k)
		}
		loc, _ := time.LoadLocation(small.Zone)
		if got, want := eval[string](p, `document.getElementById(document.getElementById('map').getAttribute('aria-activedescendant')).textContent`), a.Name+", "+time.UnixMilli(small.DayStarts[2]).In(loc).Format("2006-01-02: "); !strings.HasPrefix(got, want) {
			t.Errorf("the cell is %q, want %q", got, want)
		}
		p.shot("keyboard")
		p.keys(kb.Enter)
		p.await(`!document.getElementById('point').hidden && document.activeElement.id === 'point'`)
		p.wantGaps(small, a.ID)
		p.do(chromedp.Click(chromedp.CSS("#by-length")))
		if got := p.gapTable(); len(got) != len(gapRows(small, a.ID)) || got[0][2] != span(longest(small, a.ID)) {
			t.Errorf("by length: %v", got[0])
		}
		p.keys(kb.Escape)
		p.await(`document.getElementById('point').hidden && document.activeElement.id === 'map'`)

		// Nothing of this name; and all of them again.
		p.slash()
		p.keys("no such point")
		p.await(`!document.getElementById('nothing').hidden && document.getElementById('map').hidden`)
		p.do(chromedp.Click(chromedp.CSS("#clear")))
		p.await(`document.getElementById('shown').textContent === '200 points'`)
		p.keys(kb.Enter)
		p.keys(kb.End, chromedp.KeyModifiers(kb.ModifierCtrl))
		p.await(`document.getElementById('map').scrollTop > 1000`)
		if got := eval[string](p, `document.getElementById('row').getAttribute('aria-rowindex')`); got != "200" {
			t.Errorf("Ctrl+End is row %s", got)
		}
		p.keys("d")
		p.await(`document.getElementById('dense').getAttribute('aria-pressed') === 'true'`)
		p.shot("dense")

		// Orders and systems.
		for _, c := range []struct{ id, value, first string }{
			{"sort", "name", "Building1.HVAC.AHU1.CO2"},
			{"sort", "longest", func() string {
				return slices.MaxFunc(small.Points, func(a, b jobs.AuditPoint) int { return int(a.Longest - b.Longest) }).Name
			}()},
			{"sort", "gaps", func() string {
				return slices.MaxFunc(small.Points, func(a, b jobs.AuditPoint) int { return a.Gaps - b.Gaps }).Name
			}()},
		} {
			p.do(chromedp.SetValue(chromedp.CSS("#"+c.id), c.value))
			eval[bool](p, `document.getElementById('`+c.id+`').dispatchEvent(new Event('change'))`)
			p.do(chromedp.Focus(chromedp.CSS("#map")))
			p.keys(kb.Home, chromedp.KeyModifiers(kb.ModifierCtrl))
			if got := p.text("#rowheader"); got != c.first {
				t.Errorf("%s %s: %s first, want %s", c.id, c.value, got, c.first)
			}
		}
		eval[bool](p, `(s => { s.value = [...s.options].find(o => o.textContent === 'Plant').value; return s.dispatchEvent(new Event('change')); })(document.getElementById('system'))`)
		n := 0
		for _, a := range small.Points {
			if a.System == "Plant" {
				n++
			}
		}
		if got := p.text("#shown"); got != fmt.Sprintf("%d of 200 points", n) {
			t.Errorf("Plant: %s, want %d", got, n)
		}
	})

	t.Run("link", func(t *testing.T) {
		p := open(t, ctx, render(t, small, Options{}), 1280, 900)
		id := small.Gaps[len(small.Gaps)/2].PointID
		p.do(chromedp.Navigate(p.url + fmt.Sprintf("#p=%d", id)))
		p.await(`!document.getElementById('point').hidden`)
		p.wantGaps(small, id)
		p.do(chromedp.Reload())
		p.ready()
		p.wantGaps(small, id)
	})

	t.Run("dark", func(t *testing.T) {
		p := open(t, ctx, render(t, small, Options{}), 1280, 900, media("", "dark"))
		if got := eval[string](p, `getComputedStyle(document.body).backgroundColor`); got != "rgb(16, 21, 27)" {
			t.Errorf("background %s", got)
		}
		p.shows(p.shot("dark"), "page", "card", "whole", "h2", "h3", "empty")
		p.do(chromedp.Navigate(p.url + fmt.Sprintf("#p=%d", small.Gaps[3].PointID)))
		p.await(`!document.getElementById('point').hidden`)
		p.shows(p.shot("dark-open"), "page", "card", "whole", "h4")
		// Back to light while it is open: the canvas follows.
		p.do(media("", "light"))
		p.await(`getComputedStyle(document.body).backgroundColor === 'rgb(247, 248, 249)'`)
		p.shows(p.shot("dark-to-light"), "page", "card", "whole", "h4")
	})

	t.Run("phone", func(t *testing.T) {
		p := open(t, ctx, render(t, small, Options{}), 390, 844, chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2), chromedp.EmulateMobile))
		p.fits()
		p.shows(p.shot("phone"), "page", "card", "whole")
		eval[bool](p, `(document.getElementById('map').scrollIntoView(), true)`)
		p.shot("phone-map")
		box := eval[[]float64](p, `(b => [b.left, b.top])(document.getElementById('canvas').getBoundingClientRect())`)
		p.do(chromedp.MouseClickXY(box[0]+40, box[1]+62+10))
		p.await(`!document.getElementById('point').hidden`)
		p.fits()
		p.shot("phone-open")
	})

	t.Run("print", func(t *testing.T) {
		p := open(t, ctx, render(t, small, Options{}), 794, 1123, media("print", "dark"))
		p.await(`document.querySelectorAll('#paper tbody tr').length === 45`)
		p.shows(p.shot("print"), "whole", "h3", "h5", "empty")
		if got := eval[string](p, `getComputedStyle(document.body).backgroundColor`); got != "rgb(255, 255, 255)" {
			t.Errorf("paper is %s", got)
		}
		if p.text("#paper tbody td") != eval[string](p, `[...audit.points].sort((a, b) => b.score - a.score)[0].name`) {
			t.Error("the first on paper is not the worst")
		}
		p.do(media("", "light"))
		pdf, err := chromedp.Run(p.ctx, chromedp.PrintToPDF(chromedp.PDFPaper(chromedp.PaperA4)))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(t.ArtifactDir(), "print.pdf"), pdf, 0o644); err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(pdf, []byte("/Type /Page\n")); n < 1 || n > 3 {
			t.Errorf("%d pages of paper", n)
		}
	})

	t.Run("empty", func(t *testing.T) {
		p := open(t, ctx, render(t, &jobs.AuditReport{Zone: "UTC", From: made, To: made.AddDate(0, 0, 2)}, Options{}), 1000, 600)
		if got := p.text("#verdict"); !strings.HasPrefix(got, "No point was audited") {
			t.Errorf("verdict %q", got)
		}
		p.shot("empty")
	})

	t.Run("whole", func(t *testing.T) {
		r := fleet(3, 10, "UTC", 1)
		r.Gaps, r.Coverage = nil, jobs.Coverage{Points: 3, Expected: 43200, Present: 43200, Whole: 30}
		for i := range r.Points {
			a := &r.Points[i]
			a.Missing, a.Known, a.Gaps, a.Longest = 0, 0, 0, 0
			for d := range a.Days {
				a.Days[d] = jobs.AuditDay{State: jobs.DayWhole, Present: 1440, Expected: 1440}
			}
		}
		p := open(t, ctx, render(t, r, Options{}), 1000, 700)
		p.do(chromedp.Navigate(p.url + "#p=2"))
		p.await(`!document.getElementById('point').hidden`)
		if got := p.text("#no-gaps"); got != "None: no silence is longer than it should be." {
			t.Errorf("gaps: %q", got)
		}
		p.shot("whole")
	})

	t.Run("fast", func(t *testing.T) {
		r := fleet(60, 40, "UTC", 1)
		r.Fast, r.Gaps, r.Quality = true, nil, nil
		r.Failed = []jobs.Failure{{Month: "2025-02", Path: "_manifests/2025-02.json", Kind: "corrupt", Error: "manifest: unexpected end of JSON", Hint: "etl repair --month 2025-02"}}
		p := open(t, ctx, render(t, r, Options{}), 1280, 900)
		p.do(chromedp.Navigate(p.url + "#p=1"))
		p.await(`!document.getElementById('point').hidden`)
		if got := p.text("#no-gaps"); !strings.Contains(got, "--fast") {
			t.Errorf("gaps: %q", got)
		}
		p.shot("fast")
	})

	t.Run("hostile", func(t *testing.T) {
		r := fleet(8, 12, "UTC", 3)
		for i := range r.Points {
			a := &r.Points[i]
			a.Name, a.System, a.Equipment, a.Unit = fmt.Sprint(i, hostile), fmt.Sprint(i%2, hostile), hostile, hostile
		}
		r.Points[1].Name = ""
		r.Points[2].Name = strings.Repeat("שלום עולם مرحبا ", 300)
		r.Points[3].Name = strings.Repeat("W", 20_000)
		r.Warnings = []string{hostile}
		r.Failed = []jobs.Failure{{Path: hostile, Error: hostile, Hint: hostile}}
		for i := range r.Gaps {
			r.Gaps[i].Note, r.Gaps[i].Known = hostile, true
		}
		r.Quality = []jobs.Suspect{{PointID: 1, Rule: hostile, Text: hostile}}
		p := open(t, ctx, render(t, r, Options{}), 1280, 900)
		for i, a := range r.Points {
			p.do(chromedp.Navigate(p.url + fmt.Sprintf("#p=%d", a.ID)))
			p.await(fmt.Sprintf(`document.querySelector('#point .about')?.textContent.startsWith('point %d ')`, a.ID))
			if got, want := p.text("#point-name"), visible(label(a.Name, a.ID)); got != want {
				t.Errorf("name %q, want %q", got, want)
			}
			p.fits()
			if i == 0 || i == 2 {
				p.shot(fmt.Sprint("hostile", i))
			}
		}
		if n := eval[int](p, `document.images.length + document.scripts.length`); n != 2 {
			t.Errorf("%d images and scripts, want the data and the script", n)
		}
	})

	t.Run("large", func(t *testing.T) {
		for name, r := range map[string]*jobs.AuditReport{"ordinary": fleet(4500, 365, "Europe/Berlin", 1), "worst": noise(4500, 365, 400)} {
			html := render(t, r, Options{})
			p := open(t, ctx, html, 1280, 900, cpuTime())
			cpu := p.cpu()
			ready := eval[float64](p, `performance.getEntriesByName('ready')[0].startTime`)
			// Drawing all along the map, by the wheel's steps.
			drawn := eval[[]float64](p, `(() => {
				const map = document.getElementById('map'), times = [];
				for (let y = 0; y < map.scrollHeight; y += 997) {
					map.scrollTop = y;
					const t = performance.now();
					window.dispatchEvent(new Event('resize'));
					times.push(performance.now() - t);
				}
				map.scrollTop = 0;
				times.sort((a, b) => a - b);
				return [times[times.length >> 1], times.at(-1)];
			})()`)
			t.Logf("%s: %d bytes, ready after %.0f ms, of which the page's thread took %.0f ms; drawn anew in %.1f ms, at most %.1f ms", name, len(html), ready, 1000*cpu, drawn[0], drawn[1])
			// The target is 2 s on a machine that does nothing else; this one may.
			if ready > 30_000 || cpu > 4 {
				t.Errorf("%s: ready after %.0f ms, %.0f ms of processor time", name, ready, 1000*cpu)
			}
			p.slash()
			p.keys("no such point")
			p.await(`document.getElementById('map').hidden`)
			p.do(chromedp.Click(chromedp.CSS("#clear")))
			p.await(`!document.getElementById('map').hidden`)
			p.shows(p.shot("large-"+name), "page", "card", "h3")
		}
	})
}

func longest(r *jobs.AuditReport, id int32) int64 {
	var most int64
	for _, g := range r.Gaps {
		if g.PointID == id {
			most = max(most, g.Length)
		}
	}
	return most
}
