package auditpage

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"etl/jobs"
)

var made = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func render(t testing.TB, r *jobs.AuditReport, o Options) string {
	t.Helper()
	var b bytes.Buffer
	if o.Made.IsZero() {
		o.Made = made
	}
	if err := Render(&b, r, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var dataElement = regexp.MustCompile(`(?s)<script type="text/plain" id="data">([A-Za-z0-9+/=\n]*)</script>`)

// unpack reads what pack wrote, by the description in pack.go and not by its code.
func unpack(t testing.TB, page string) (header, *jobs.AuditReport) {
	t.Helper()
	m := dataElement.FindStringSubmatch(page)
	if m == nil {
		t.Fatal("the page has no data")
	}
	zipped, err := base64.StdEncoding.DecodeString(m[1])
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint32(raw)
	var h header
	if err := json.Unmarshal(raw[4:4+n], &h); err != nil {
		t.Fatal(err)
	}
	raw = raw[4+n:]
	columns := make([][]byte, len(h.Columns))
	for i, n := range h.Columns {
		columns[i], raw = raw[:n], raw[n:]
	}
	if len(raw) > 0 || len(columns) != 30 {
		t.Fatalf("%d columns, and %d bytes after them", len(columns), len(raw))
	}
	varint := func(c int) uint64 {
		v, n := binary.Uvarint(columns[c])
		if n <= 0 {
			t.Fatalf("column %d ends early", c)
		}
		columns[c] = columns[c][n:]
		return v
	}
	zigzag := func(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }
	signed := func(c int) int64 { return zigzag(varint(c)) }
	opt := func(c int) *int64 {
		u := varint(c)
		if u == 0 {
			return nil
		}
		return new(zigzag(u - 1))
	}
	plus := func(d *int64, base int64) *int64 {
		if d == nil {
			return nil
		}
		return new(*d + base)
	}

	days := max(len(h.DayStarts)-1, 0)
	r := &jobs.AuditReport{Zone: h.Zone, Fast: h.Fast, Tolerance: h.Tolerance, Silence: h.Silence, DayStarts: h.DayStarts}
	var id int64
	var listed []uint64
	for _, name := range h.Names {
		id += signed(0)
		p := jobs.AuditPoint{ID: int32(id), Name: name}
		p.System, p.Equipment, p.Unit = h.Texts[varint(1)], h.Texts[varint(2)], h.Texts[varint(3)]
		p.Interval, p.Measured = opt(4), varint(5) == 1
		p.From, p.To = signed(6)+h.DayStarts[0], signed(7)+h.DayStarts[days]
		p.First, p.Last, p.Expected = opt(8), opt(9), opt(10)
		p.Present, p.Missing, p.Known, p.Gaps, p.Longest = signed(11), signed(12), signed(13), int(signed(14)), signed(15)
		listed = append(listed, varint(16))
		var due int32
		for range days {
			var d jobs.AuditDay
			due += int32(signed(18))
			d.Expected = due
			d.Present = due - int32(signed(19))
			if s := columns[17][0]; s == 0 {
				d.State = likely(d)
			} else {
				d.State = states[s-1]
			}
			columns[17] = columns[17][1:]
			p.Days = append(p.Days, d)
		}
		r.Points = append(r.Points, p)
	}
	for i, p := range r.Points {
		at := p.From
		for range listed[i] {
			k := varint(20)
			g := jobs.Gap{PointID: p.ID, Point: p.Name, Kind: kinds[k>>1], Known: k&1 == 1}
			unit := int64(1000)
			if p.Interval != nil && *p.Interval > 0 {
				unit = *p.Interval
			}
			g.From = at + signed(21)*unit + signed(22)
			units := signed(23)
			g.To = g.From + units*unit + signed(24)
			g.After, g.Before = plus(opt(25), g.From), plus(opt(26), g.To)
			g.Length = g.To - g.From + signed(27)
			g.Missing = plus(opt(28), units)
			g.Note = h.Texts[varint(29)]
			at = g.To
			r.Gaps = append(r.Gaps, g)
		}
	}
	for _, q := range h.Quality {
		p := r.Points[q.Point]
		r.Quality = append(r.Quality, jobs.Suspect{PointID: p.ID, Point: p.Name, Rule: q.Rule, From: q.From, To: q.To, Samples: q.Samples, Value: *q.Value, Limit: *q.Limit, Text: q.Text})
	}
	for c, rest := range columns {
		if len(rest) > 0 {
			t.Fatalf("column %d has %d bytes too many", c, len(rest))
		}
	}
	return h, r
}

// TestPacked: what the page holds is the report.
func TestPacked(t *testing.T) {
	for _, r := range []*jobs.AuditReport{fleet(230, 95, "Europe/Berlin", 3), noise(20, 40, 30), {Zone: "UTC"}} {
		h, got := unpack(t, render(t, r, Options{}))
		want := *r
		want.From, want.To, want.Coverage = got.From, got.To, got.Coverage // in the words, not in the data
		if h.Omitted != 0 {
			t.Errorf("%d gaps are left out", h.Omitted)
		}
		if len(want.DayStarts) == 0 {
			want.DayStarts = []int64{}
		}
		if !reflect.DeepEqual(got, &want) {
			for i := range want.Points {
				if !reflect.DeepEqual(got.Points[i], want.Points[i]) {
					t.Fatalf("point\n got %+v\nwant %+v", got.Points[i], want.Points[i])
				}
			}
			for i := range want.Gaps {
				if !reflect.DeepEqual(got.Gaps[i], want.Gaps[i]) {
					t.Fatalf("gap\n got %+v\nwant %+v", got.Gaps[i], want.Gaps[i])
				}
			}
			t.Fatalf("\n got %+v\nwant %+v", got.Quality, want.Quality)
		}
	}
}

// TestExtremes: numbers at their ends come through, and what is not finite.
func TestExtremes(t *testing.T) {
	r := fleet(2, 3, "UTC", 1)
	p := &r.Points[0]
	const most = 1<<53 - 1
	p.Present, p.Missing, p.Longest, p.First, p.Last = most, most, most, new(int64(-most)), new(int64(most))
	p.Days[0] = jobs.AuditDay{State: jobs.DayHoles, Present: math.MaxInt32, Expected: 1}
	p.Days[1] = jobs.AuditDay{State: jobs.DayHoles, Present: 0, Expected: math.MaxInt32}
	p.Interval, p.Expected = nil, nil
	r.Gaps = []jobs.Gap{{PointID: 1, Point: p.Name, Kind: "empty", From: r.DayStarts[0], To: r.DayStarts[3], Length: most, Note: "\x00</script>"}}
	r.Quality = nil
	_, got := unpack(t, render(t, r, Options{}))
	if !reflect.DeepEqual(got.Points, r.Points) || !reflect.DeepEqual(got.Gaps, r.Gaps) {
		t.Fatalf("got %+v\n%+v\nwant %+v\n%+v", got.Points[0], got.Gaps, r.Points[0], r.Gaps)
	}
	r.Quality = []jobs.Suspect{{PointID: 1, Rule: "spike", Value: math.Inf(1), Limit: math.NaN()}}
	render(t, r, Options{})
}

// TestSizes: the file of a year of 4,500 points.
func TestSizes(t *testing.T) {
	if testing.Short() {
		t.Skip("packs three years of 4,500 points")
	}
	for _, c := range []struct {
		name string
		r    *jobs.AuditReport
		most int
	}{
		{"ordinary", fleet(4500, 365, "Europe/Berlin", 1), 1_000_000},
		{"worst", noise(4500, 365, 400), 5_000_000},
	} {
		start := time.Now()
		page := render(t, c.r, Options{})
		h, _ := unpack(t, page)
		t.Logf("%s: %d gaps, %d listed: %d bytes in %v", c.name, len(c.r.Gaps), h.Gaps, len(page), time.Since(start).Round(time.Millisecond))
		if len(page) > c.most {
			t.Errorf("%s: %d bytes, of at most %d", c.name, len(page), c.most)
		}
		if h.Gaps+h.Omitted != len(c.r.Gaps) || c.name == "ordinary" && h.Omitted > 0 || c.name == "worst" && h.Gaps < 50_000 {
			t.Errorf("%s: of %d gaps %d are listed, %d left out", c.name, len(c.r.Gaps), h.Gaps, h.Omitted)
		}
	}
}

// TestLongestGapsStay: of too many gaps the page lists the longest.
func TestLongestGapsStay(t *testing.T) {
	r := noise(50, 30, 200)
	for i := range r.Gaps {
		r.Gaps[i].Length -= r.Gaps[i].Length % 1_000_000 // many of the same length
	}
	full := render(t, r, Options{})
	limit := len(full) - 20_000
	page := render(t, r, Options{MaxBytes: limit})
	h, got := unpack(t, page)
	if len(page) > limit || h.Gaps == 0 || h.Omitted == 0 || h.Gaps+h.Omitted != len(r.Gaps) {
		t.Fatalf("%d bytes of at most %d, %d gaps listed, %d left out", len(page), limit, h.Gaps, h.Omitted)
	}
	lengths := func(gs []jobs.Gap) []int64 {
		var ls []int64
		for _, g := range gs {
			ls = append(ls, g.Length)
		}
		slices.Sort(ls)
		slices.Reverse(ls)
		return ls
	}
	if !slices.Equal(lengths(got.Gaps), lengths(r.Gaps)[:h.Gaps]) {
		t.Error("a longer gap was left out for a shorter one")
	}
	if h, _ := unpack(t, render(t, r, Options{MaxBytes: 1})); h.Gaps != 0 || len(h.Names) != 50 {
		t.Errorf("with no room: %d gaps, %d points", h.Gaps, len(h.Names))
	}
}

func TestDeterministic(t *testing.T) {
	first := render(t, fleet(60, 40, "Asia/Tokyo", 5), Options{})
	if first != render(t, fleet(60, 40, "Asia/Tokyo", 5), Options{}) {
		t.Error("two pages of one report differ")
	}
}

const hostile = "<img src=x onerror=alert(1)></script><script>alert(2)</script>\"'`&\u202egpj.exe\u2066\x00\x1b[31m\u2028"

// TestEscaping: nothing that a report says becomes markup.
func TestEscaping(t *testing.T) {
	r := fleet(5, 4, "UTC", 2)
	for i := range r.Points {
		p := &r.Points[i]
		p.Name, p.System, p.Equipment, p.Unit = hostile, hostile, hostile, hostile
	}
	r.Points[0].Longest, r.Points[0].Gaps = 1e12, 1
	r.Coverage.LongestGap, r.Coverage.Gaps = 1e12, 1
	r.Warnings = []string{hostile}
	r.Failed = []jobs.Failure{{Month: hostile, Point: hostile, Path: hostile, Kind: hostile, Error: hostile, Hint: hostile}}
	r.Quality = []jobs.Suspect{{PointID: 1, Rule: hostile, Text: hostile}}
	for i := range r.Gaps {
		r.Gaps[i].Note = hostile
	}
	page := render(t, r, Options{Program: hostile})
	outside := strings.ReplaceAll(strings.ReplaceAll(page, pageJS, ""), pageCSS, "")
	if n := strings.Count(outside, "<script"); n != 2 || strings.Count(outside, "</script>") != 2 {
		t.Errorf("%d scripts", n)
	}
	for _, bad := range []string{"<img", "alert(1)>", "\u202e", "\u2066", "\x00", "\x1b", "\u2028"} {
		if strings.Contains(outside, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if !strings.Contains(outside, "⟨202E⟩gpj.exe⟨2066⟩⟨0000⟩⟨001B⟩[31m⟨2028⟩") {
		t.Error("what can not be seen is not shown by its number")
	}
	if _, got := unpack(t, page); got.Points[0].Name != hostile {
		t.Errorf("name in the data: %q", got.Points[0].Name)
	}
}

// TestPolicy: the page's policy names its own script and style and nothing else.
func TestPolicy(t *testing.T) {
	page := render(t, fleet(3, 3, "UTC", 1), Options{})
	policy := regexp.MustCompile(`http-equiv="Content-Security-Policy" content="([^"]*)"`).FindStringSubmatch(page)
	style := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindStringSubmatch(page)
	script := regexp.MustCompile(`(?s)<script>(.*?)</script>`).FindStringSubmatch(page)
	if policy == nil || style == nil || script == nil {
		t.Fatal("no policy, style or script")
	}
	want := "default-src 'none'; script-src " + hash(script[1]) + "; style-src " + hash(style[1]) + "; img-src data:; base-uri 'none'; form-action 'none'"
	if policy[1] != want {
		t.Errorf("policy %s\nwant   %s", policy[1], want)
	}
	for _, bad := range []string{" style=\"", " onclick", "http://", "https://", "innerHTML", "eval("} {
		if strings.Contains(strings.ReplaceAll(page, "http://www.w3.org/2000/svg", ""), bad) {
			t.Errorf("the page has %q", bad)
		}
	}
}

func TestWords(t *testing.T) {
	whole := fleet(1, 2, "UTC", 1)
	whole.Gaps = nil
	whole.Coverage = jobs.Coverage{Points: 1, Expected: 2880, Present: 2880, Whole: 2}
	whole.Points[0].Gaps, whole.Points[0].Missing = 0, 0
	gappy := fleet(200, 40, "Europe/Zurich", 1)
	fast := fleet(20, 10, "UTC", 1)
	fast.Fast, fast.Gaps = true, nil
	failed := fleet(4, 4, "UTC", 1)
	for range 60 {
		failed.Failed = append(failed.Failed, jobs.Failure{Path: "timeseries/2025/01/a.parquet", Error: "is damaged", Hint: "etl repair"})
		failed.Warnings = append(failed.Warnings, "points.json is older than the manifest")
	}
	for _, c := range []struct {
		name string
		r    *jobs.AuditReport
		want []string
	}{
		{"whole", whole, []string{"Whole: every sample that was expected is there.", "All of 2,880 expected samples are there.", "2025-01-12 to 2025-01-13 (2 days of UTC)", "100.00 %", "Of the days of all points, 2 are whole."}},
		{"gaps", gappy, []string{"of 200 points. The longest one lasted ", "2025-01-12 to 2025-02-20 (40 days of Europe/Zurich)", "Made 2026-01-02 04:04 CET by etl", "longer than 1.5 times the interval that is expected of a point, or longer than 6 h."}},
		{"fast", fast, []string{"Counted from the manifests alone", "not looked for (--fast)"}},
		{"failed", failed, []string{"60 files or manifests could not be read", "What could not be read", "etl repair", "and 10 more", "Warnings"}},
		{"no points", &jobs.AuditReport{Zone: "UTC", From: made, To: made.Add(90 * time.Minute)}, []string{"No point was audited", "2026-01-02 03:04 to 2026-01-02 04:34"}},
	} {
		page := render(t, c.r, Options{})
		for _, want := range c.want {
			if !strings.Contains(page, want) {
				t.Errorf("%s: the page lacks %q", c.name, want)
			}
		}
	}
	if strings.Contains(render(t, fast, Options{}), `value="longest"`) {
		t.Error("a fast audit offers to sort by the longest gap")
	}
}

func TestPercent(t *testing.T) {
	for _, c := range []struct {
		part, whole int64
		want        string
	}{{0, 5, "0.00 %"}, {5, 5, "100.00 %"}, {1e9 - 1, 1e9, "99.99 %"}, {-3, 5, "0.00 %"}, {1, 3, "33.33 %"}} {
		if got := percent(c.part, c.whole); got != c.want {
			t.Errorf("percent(%d, %d) = %s, want %s", c.part, c.whole, got, c.want)
		}
	}
}

func TestSpan(t *testing.T) {
	for ms, want := range map[int64]string{0: "0 ms", 7: "7 ms", 1500: "1 s", 61_000: "1 min 1 s", 3_600_000: "1 h", 93_600_000: "1 d 2 h", 86_400_000*400 + 60_000: "400 d"} {
		if got := span(ms); got != want {
			t.Errorf("span(%d) = %s, want %s", ms, got, want)
		}
	}
}

// TestRefused: a report that contradicts itself has no page, and nothing is written.
func TestRefused(t *testing.T) {
	for name, spoil := range map[string]func(*jobs.AuditReport){
		"zone":          func(r *jobs.AuditReport) { r.Zone = "Mars/Olympus" },
		"state":         func(r *jobs.AuditReport) { r.Points[1].Days[0].State = "odd" },
		"days":          func(r *jobs.AuditReport) { r.Points[1].Days = r.Points[1].Days[1:] },
		"no days":       func(r *jobs.AuditReport) { r.DayStarts = nil },
		"gap's point":   func(r *jobs.AuditReport) { r.Gaps = append(r.Gaps, jobs.Gap{PointID: 99, Kind: "inner"}) },
		"gap's kind":    func(r *jobs.AuditReport) { r.Gaps = append(r.Gaps, jobs.Gap{PointID: 1, Kind: "odd"}) },
		"quality point": func(r *jobs.AuditReport) { r.Quality = append(r.Quality, jobs.Suspect{PointID: 99}) },
	} {
		r := fleet(3, 3, "UTC", 1)
		spoil(r)
		var b bytes.Buffer
		if err := Render(&b, r, Options{}); err == nil || b.Len() > 0 {
			t.Errorf("%s: error %v, %d bytes written", name, err, b.Len())
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

var errFull = errors.New("disk full")

func TestWriteFails(t *testing.T) {
	if err := Render(full{}, fleet(3, 3, "UTC", 1), Options{}); !errors.Is(err, errFull) {
		t.Errorf("error %v", err)
	}
}

// TestContrast: text stands out from what is behind it, as WCAG 2 has it (4.5),
// in light and in dark.
func TestContrast(t *testing.T) {
	themes := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(pageCSS, 2)
	if len(themes) != 2 {
		t.Fatalf("%d themes", len(themes))
	}
	light := make(map[string][3]float64)
	for i, theme := range themes {
		dark := i == 1
		colors := make(map[string][3]float64)
		for name, c := range light {
			colors[name] = c
		}
		for _, m := range regexp.MustCompile(`--([a-z0-9-]+): #([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2});`).FindAllStringSubmatch(theme[1], -1) {
			var c [3]float64
			for k := range c {
				v, err := strconv.ParseUint(m[2+k], 16, 8)
				if err != nil {
					t.Fatal(err)
				}
				c[k] = float64(v) / 255
			}
			colors[m[1]] = c
		}
		if !dark {
			light = colors
		}
		luminance := func(name string) float64 {
			c, ok := colors[name]
			if !ok {
				t.Fatalf("no color %s", name)
			}
			var l float64
			for k, weight := range [3]float64{0.2126, 0.7152, 0.0722} {
				v := c[k]
				if v <= 0.04045 {
					v /= 12.92
				} else {
					v = math.Pow((v+0.055)/1.055, 2.4)
				}
				l += weight * v
			}
			return l
		}
		for _, c := range []struct {
			text, back string
			least      float64
		}{
			{"ink", "page", 7}, {"ink", "card", 7}, {"ink", "warn-soft", 7}, {"ink", "bad-soft", 7},
			{"muted", "page", 4.5}, {"muted", "card", 4.5}, {"muted", "soft", 4.5}, {"muted", "bad-soft", 4.5},
			{"good", "page", 4.5}, {"page", "ink", 7}, {"accent", "card", 3}, {"none-ink", "none", 2},
		} {
			a, b := luminance(c.text)+0.05, luminance(c.back)+0.05
			if ratio := max(a, b) / min(a, b); ratio < c.least {
				t.Errorf("dark %v: %s on %s has contrast %.2f, want %v", dark, c.text, c.back, ratio, c.least)
			}
		}
		// Severity is lightness, in even steps: dark on light, bright on dark.
		last := -1.0
		for _, name := range []string{"h1", "h2", "h3", "h4", "h5", "empty"} {
			l := luminance(name) + 0.05
			if last > 0 && (!dark && last/l < 1.15 || dark && l/last < 1.15) {
				t.Errorf("dark %v: %s is too much like the grade before it", dark, name)
			}
			last = l
		}
	}
}
