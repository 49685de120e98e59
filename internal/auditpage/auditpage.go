// Package auditpage writes the report of an audit as a page that a person looks
// at: one HTML file with everything in it, which opens offline, in any browser
// of these years (it needs DecompressionStream: 2023), and can be mailed or kept.
//
// The file has the totals as text, readable without JavaScript too, and the
// report packed (pack.go) with a script that draws it: a heat map of points and
// days, and the gaps of the point that is opened. Style and script are page.css
// and page.js beside this file. A content security policy names them by their
// hashes and allows nothing else, no request and no other script: names of
// points, notes and errors are hostile input. They reach the page through the
// escaping of html/template or, packed, as text that the script only ever sets
// as text; characters that can not be seen or that turn the direction of
// writing are shown by their numbers.
//
// Times are in the zone of the report. The page of a report is the same bytes
// every time.
package auditpage

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"

	"etl/jobs"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string
	//go:embed page.js
	pageJS string

	skeleton = template.Must(template.New("page").Funcs(template.FuncMap{"visible": visible}).Parse(pageHTML))
)

// Options of a page. The zero value will do.
type Options struct {
	// Made is when the audit was made; zero leaves it out.
	Made time.Time
	// Program is what made it, such as "etl v1.2.3"; "" is etl.
	Program string
	// MaxBytes bounds the gaps that are listed: the shortest are left out, and
	// counted, until the file is no larger. Points and days are never left out.
	// 0 is 5,000,000.
	MaxBytes int
}

const (
	maxBytes = 5_000_000 // what mail and chat pass on, and a browser opens in a second

	// maxGaps bounds the work of the first try: a gap takes 8 bytes of the page
	// or more, so more of them never fit into maxBytes.
	maxGaps = maxBytes / 8

	// listed bounds warnings and failures on the page.
	listed = 50
)

// Render writes the page of r to w. It writes nothing if r contradicts itself: a
// gap of a point that it does not have, a point with more days than the range,
// an unknown state.
func Render(w io.Writer, r *jobs.AuditReport, o Options) error {
	zone, err := time.LoadLocation(r.Zone)
	if err != nil {
		return fmt.Errorf("audit page: %w", err)
	}
	limit := o.MaxBytes
	if limit <= 0 {
		limit = maxBytes
	}
	var top bytes.Buffer
	if err := skeleton.Execute(&top, overview(r, o, zone)); err != nil {
		return fmt.Errorf("audit page: %w", err)
	}
	const open, between, end = `<script type="text/plain" id="data">`, "</script>\n<script>", "</script>\n</body>\n</html>\n"
	rest := top.Len() + len(open) + len(between) + len(pageJS) + len(end)

	data, err := fit(r, limit-rest)
	if err != nil {
		return err
	}
	for _, s := range []string{top.String(), open, data, between, pageJS, end} {
		if _, err := io.WriteString(w, s); err != nil {
			return fmt.Errorf("write the audit page: %w", err)
		}
	}
	return nil
}

// fit packs r into at most room bytes, with fewer gaps if it must.
func fit(r *jobs.AuditReport, room int) (string, error) {
	gaps := min(len(r.Gaps), maxGaps)
	data, err := pack(r, gaps)
	if err != nil || gaps == 0 || len(data) <= room {
		return data, err
	}
	bare, err := pack(r, 0)
	if err != nil || len(bare) >= room {
		return bare, err
	}
	// A gap takes about the same room each; a hundredth less, not to try again.
	gaps = int(0.99 * float64(gaps) * float64(room-len(bare)) / float64(len(data)-len(bare)))
	for gaps > 0 {
		if data, err = pack(r, gaps); err != nil || len(data) <= room {
			return data, err
		}
		gaps = gaps * 9 / 10
	}
	return bare, nil
}

// view is what the template shows.
type view struct {
	Policy    template.HTMLAttr
	Style     template.CSS
	Title     string
	Range     string
	Made      string
	Program   string
	Verdict   string // in one sentence
	Good      bool
	Sentences []string
	Figures   []figure
	Warnings  []string
	Failed    []jobs.Failure
	More      struct{ Warnings, Failed int } // that are not listed
	Points    int
	Fast      bool
}

type figure struct{ Value, Label, Note string }

func hash(s string) string {
	h := sha256.Sum256([]byte(s))
	return "'sha256-" + base64.StdEncoding.EncodeToString(h[:]) + "'"
}

func overview(r *jobs.AuditReport, o Options, zone *time.Location) view {
	c := &r.Coverage
	v := view{
		Policy: template.HTMLAttr(`content="default-src 'none'; script-src ` + hash(pageJS) + `; style-src ` + hash(pageCSS) +
			`; img-src data:; base-uri 'none'; form-action 'none'"`),
		Style:   template.CSS(pageCSS),
		Title:   "Data continuity, " + rangeText(r.From, r.To, zone),
		Range:   rangeText(r.From, r.To, zone),
		Program: o.Program,
		Points:  len(r.Points),
		Fast:    r.Fast,
	}
	if v.Program == "" {
		v.Program = "etl"
	}
	if !o.Made.IsZero() {
		v.Made = o.Made.In(zone).Format("2006-01-02 15:04 MST")
	}
	days := max(len(r.DayStarts)-1, 0)
	v.Range += fmt.Sprintf(" (%s of %s)", count(int64(days), "day"), r.Zone)
	v.Warnings, v.More.Warnings = first(r.Warnings)
	v.Failed, v.More.Failed = first(r.Failed)

	coverage := "–"
	if c.Expected > 0 {
		coverage = percent(c.Expected-c.Missing, c.Expected)
	}
	v.Good = len(r.Points) > 0 && c.Missing == 0 && c.Gaps+c.KnownGaps == 0 && c.NotArchived == 0 && len(r.Failed) == 0
	withGaps, longest := 0, ""
	for i := range r.Points {
		p := &r.Points[i]
		if p.Gaps > 0 {
			withGaps++
		}
		if longest == "" && p.Longest > 0 && p.Longest == c.LongestGap {
			longest = label(p.Name, p.ID)
		}
	}

	switch {
	case len(r.Points) == 0:
		v.Verdict = "No point was audited: none matches, or none was ever archived."
	case len(r.Failed) > 0:
		v.Verdict = count(int64(len(r.Failed)), "file or manifest", "files or manifests") + " could not be read, so what is said below may be incomplete."
	case v.Good && c.Expected > 0:
		v.Verdict = "Whole: every sample that was expected is there."
	case v.Good:
		v.Verdict = "No gap. Nothing says how many samples are due, so nothing is known to be missing."
	case r.Fast && c.Missing > 0:
		v.Verdict = count(c.Missing, "sample is", "samples are") + " missing."
	case r.Fast || c.Gaps == 0 && c.Missing == c.Known:
		v.Verdict = "Nothing is missing that is not acknowledged."
		if c.NotArchived > 0 {
			v.Verdict = count(c.NotArchived, "point-day is", "point-days are") + " not archived."
		}
	case c.Gaps == 0:
		v.Verdict = "There is no gap, but " + count(c.Missing-c.Known, "sample is", "samples are") + " missing."
	default:
		v.Verdict = count(c.Gaps, "gap", "gaps") + " in " + humanize.Comma(int64(withGaps)) + " of " + count(len(r.Points), "point") + "."
		if longest != "" {
			v.Verdict += " The longest one lasted " + span(c.LongestGap) + ": " + longest + "."
		}
	}

	say := func(format string, a ...any) { v.Sentences = append(v.Sentences, fmt.Sprintf(format, a...)) }
	if len(r.Points) > 0 {
		switch {
		case c.Expected > 0 && c.Missing > 0:
			say("Of %s expected samples %s missing. In all %s there.", humanize.Comma(c.Expected), count(c.Missing, "is", "are"), count(c.Present, "sample is", "samples are"))
		case c.Expected > 0:
			say("All of %s are there. In all %s there.", count(c.Expected, "expected sample"), count(c.Present, "sample is", "samples are"))
		default:
			say("%s there. Of how many nobody knows: no point has an interval.", count(c.Present, "sample is", "samples are"))
		}
		if c.KnownGaps > 0 || c.Known > 0 {
			say("%s acknowledged, and %s of the missing samples lie there; gaps do not count them.", count(c.KnownGaps, "further gap is", "further gaps are"), humanize.Comma(c.Known))
		}
		var parts []string
		for _, p := range []struct {
			n         int64
			one, many string
		}{
			{c.Whole, "is whole", "are whole"},
			{c.Holes, "has holes", "have holes"},
			{c.Empty, "was archived without a sample", "were archived without a sample"},
			{c.NotArchived, "was never archived", "were never archived"},
		} {
			if p.n > 0 {
				parts = append(parts, count(p.n, p.one, p.many))
			}
		}
		if len(parts) > 0 {
			say("Of the days of all points, %s.", join(parts))
		}
		if n := len(r.Quality); n > 0 {
			say("Data quality: %s.", count(n, "finding"))
		}
		switch {
		case r.Fast:
			say("Counted from the manifests alone (--fast): the gaps themselves are not listed.")
		case r.Silence > 0:
			say("A gap is a silence longer than %s times the interval that is expected of a point, or longer than %s.", trim(r.Tolerance), span(r.Silence))
		default:
			say("A gap is a silence longer than %s times the interval that is expected of a point.", trim(r.Tolerance))
		}
	}

	gapsNote := "in " + humanize.Comma(int64(withGaps)) + " of " + count(len(r.Points), "point")
	gapsValue, longestValue, longestNote := humanize.Comma(int64(c.Gaps)), span(c.LongestGap), longest
	if c.LongestGap == 0 {
		longestValue, longestNote = "–", "no gap"
	}
	if r.Fast {
		gapsValue, gapsNote, longestValue, longestNote = "–", "not looked for (--fast)", "–", "not looked for (--fast)"
	}
	v.Figures = []figure{
		{coverage, "Coverage", "of " + humanize.Comma(c.Expected) + " expected"},
		{humanize.Comma(c.Missing), "Missing samples", "in " + count(c.Holes+c.Empty+c.NotArchived, "point-day")},
		{gapsValue, "Gaps", gapsNote},
		{longestValue, "Longest gap", longestNote},
		{humanize.Comma(c.NotArchived), "Not archived", plural(c.NotArchived, "point-day", "point-days")},
		{humanize.Comma(c.Known), "Acknowledged", "samples in " + count(c.KnownGaps, "gap")},
	}
	return v
}

func first[T any](list []T) ([]T, int) {
	n := min(len(list), listed)
	return list[:n], len(list) - n
}

// rangeText names the first and the last day that a range includes, or its ends
// where these are not midnights.
func rangeText(from, to time.Time, zone *time.Location) string {
	from, to = from.In(zone), to.In(zone)
	const day = "2006-01-02"
	if !midnight(from) || !midnight(to) {
		return from.Format(day+" 15:04") + " to " + to.Format(day+" 15:04")
	}
	last := to.Add(-time.Millisecond)
	if from.Format(day) == last.Format(day) || !last.After(from) {
		return from.Format(day)
	}
	return from.Format(day) + " to " + last.Format(day)
}

func midnight(t time.Time) bool {
	h, m, s := t.Clock()
	return h == 0 && m == 0 && s == 0 && t.Nanosecond() == 0
}

// percent is rounded down: 100 % is only what lacks nothing.
func percent(part, whole int64) string {
	f := math.Floor(10000 * float64(max(part, 0)) / float64(whole))
	if part < whole {
		f = min(f, 9999)
	}
	return fmt.Sprintf("%.2f %%", f/100)
}

func plural[N int | int64](n N, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func count[N int | int64](n N, one string, many ...string) string {
	m := one + "s"
	if len(many) > 0 {
		m = many[0]
	}
	return humanize.Comma(int64(n)) + " " + plural(n, one, m)
}

func join(parts []string) string {
	if n := len(parts); n > 1 {
		return strings.Join(parts[:n-1], ", ") + " and " + parts[n-1]
	}
	return strings.Join(parts, "")
}

func trim(f float64) string { return humanize.Ftoa(f) }

// span is a length of time in its two largest units, as page.js has it too.
func span(ms int64) string {
	units := []struct {
		ms   int64
		name string
	}{{86_400_000, "d"}, {3_600_000, "h"}, {60_000, "min"}, {1000, "s"}, {1, "ms"}}
	for i, u := range units {
		if ms < u.ms {
			continue
		}
		out := fmt.Sprintf("%d %s", ms/u.ms, u.name)
		if i+1 < len(units) && u.ms > 1000 {
			if rest := ms % u.ms / units[i+1].ms; rest > 0 {
				out += fmt.Sprintf(" %d %s", rest, units[i+1].name)
			}
		}
		return out
	}
	return fmt.Sprintf("%d ms", ms)
}

func label(name string, id int32) string {
	if name == "" {
		return fmt.Sprintf("point %d", id)
	}
	return name
}

// visible shows by their numbers the characters that have no shape of their own:
// controls, marks of direction, joiners, what is not UTF-8. page.js has it too.
func visible(s string) string {
	var b strings.Builder
	for i, c := range s {
		_, width := utf8.DecodeRuneInString(s[i:])
		switch {
		case c == utf8.RuneError && width == 1:
			b.WriteRune(utf8.RuneError)
		case unicode.In(c, unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp):
			fmt.Fprintf(&b, "⟨%04X⟩", c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}
