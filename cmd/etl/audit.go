package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"etl/internal/fault"
	"etl/internal/utc"
	"etl/jobs"
)

func (a *app) audit() *cobra.Command {
	var (
		s     session
		d     span
		o     jobs.AuditOptions
		out   auditOutput
		zone  string
		rules []string
		known string

		tolerance       = 1.5
		silence, maxGap stretch
		missing         allowance
		flatline        = stretch(24 * time.Hour)
		spike           = 10.0
		bad, drift      = share(0.05), share(0.1)
		grace           = wait(jobs.Grace)
	)
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Find every gap in the samples of a range, hot and cold together, and count what is missing",
		Long: `audit looks at each point's readings (samples whose value is not NULL) over a range
and lists each silence longer than --tolerance times the interval that is expected:
points.interval_ms, or where that is not known the median over the range. A point
that reports changes only (interval_ms = 0) has a gap only where it is silent for
longer than --max-silence. What is missing at the beginning and the end of the range
counts too, from a point's first sample ever until it was retired.

--fast counts samples per UTC day by the manifests alone: no month file is read and
no gap is listed, and a sample whose value is NULL counts like any other.

--known FILE names outages that are acknowledged, a CSV of point,from,to,note: a gap
that lies inside them is listed and does not count. Without --max-missing and
--max-gap any other gap is a finding (exit 3); with them only what exceeds them is.

--rules looks for what is wrong with the values: ` + strings.Join(jobs.AuditRules, ", ") + `.
They read every value, and so are looked for unasked only where the range has up to
50 million samples. They are no finding for the exit code but with --strict.

Exit 0: nothing is missing that may not be. 3: something is. 4: a file or manifest is
damaged; it is named, and the rest was audited.`,
		Example: `  etl audit                                         # the last 30 complete days
  etl audit --month 2024-01 --points 'Building1.*'
  etl audit --last 1d --max-missing 0.5% --max-gap 2h --known outages.csv   # each night
  etl audit --from 2024-01-01 --to 2025-01-01 --fast
  etl audit --last 7d -o gaps.csv --html audit.html
  etl audit --month 2024-03 --tz Europe/Berlin --rules flatline,spike --json`,
	}
	s.add(cmd)
	d.add(cmd)
	addPoints(cmd, &o.Points)
	out.add(cmd)
	f := cmd.Flags()
	f.Float64Var(&tolerance, "tolerance", tolerance, "how many intervals are no gap yet")
	f.Var(&silence, "max-silence", "the longest silence of points that report changes only, like 12h (default none)")
	f.BoolVar(&o.Fast, "fast", false, "count by the manifests alone; lists no gaps")
	f.StringVar(&zone, "tz", "UTC", "the time `ZONE` whose days are meant, like Europe/Berlin")
	f.Var(&grace, "grace", "how long after its end a day is taken to be complete")
	f.StringVar(&known, "known", "", "CSV `FILE` of acknowledged outages: point,from,to,note")
	f.Var(&missing, "max-missing", "how many samples may be missing before it is a finding, or what part of those expected")
	f.Var(&maxGap, "max-gap", "how long a gap may be before it is a finding, like 2h or 3d")
	f.StringSliceVar(&rules, "rules", nil, "`RULES` of data quality to look for: "+strings.Join(jobs.AuditRules, ", ")+", all or none (default all, up to 50 million samples)")
	f.Var(&flatline, "flatline", "how long a measured value may stay the same")
	f.Float64Var(&spike, "spike", spike, "the robust z-score from which a value is a spike")
	f.Var(&bad, "bad-share", "what part of the samples may be of bad quality (below 192)")
	f.Var(&drift, "drift", "how far the interval that is kept may be from the one that is set")
	f.BoolVar(&o.Strict, "strict", false, "what the rules found is a finding, too (exit 3)")
	complete(cmd, "rules", append([]string{"all", "none"}, jobs.AuditRules...)...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		if o.Zone, err = time.LoadLocation(zone); err != nil || zone == "" || zone == "Local" {
			return fault.Hint(fault.Errorf(fault.Usage, "--tz %q is no time zone", zone), "give a name of the IANA list, like Europe/Berlin or UTC")
		}
		if zone == "UTC" {
			o.Zone = time.UTC
		}
		if o.Rules, err = chosenRules(rules); err != nil {
			return err
		}
		if known != "" {
			if o.Known, err = readKnown(known); err != nil {
				return err
			}
		}
		o.Tolerance, o.MaxSilence, o.MaxGap, o.MaxMissing = tolerance, time.Duration(silence), time.Duration(maxGap), missing.value()
		if tolerance == 0 || !(spike > 0) { // NaN is not
			return fault.Errorf(fault.Usage, "--tolerance and --spike: want a number above 0")
		}
		o.Limits = jobs.RuleLimits{Flatline: time.Duration(flatline), Spike: spike, Bad: new(float64(bad)), Drift: new(float64(drift))}
		if err := out.resolve(a); err != nil {
			return err
		}
		if err := s.places.resolve(a, cmd); err != nil {
			return err
		}
		now := s.clock()()
		local := now.Add(-time.Duration(grace)).In(o.Zone)
		end := utc.DayOfTime(time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, time.UTC))
		if o.Days, err = d.days(0, end); err != nil {
			return err
		}
		if o.Days == (utc.Days{}) {
			o.Days = utc.Days{From: end - 30, To: end}
		}
		if err := o.Validate(); err != nil {
			return err
		}
		s.noSource = s.noSource || o.Fast && o.Points.Group == ""
		l, done, err := s.open(cmd, a)
		if err != nil {
			return err
		}
		defer done()
		env := s.env
		var stop func()
		env.Notify, stop = a.watch("audit")
		r, err := jobs.Audit(cmd.Context(), env, l, o)
		s.wipe()
		stop()
		if err != nil {
			return err
		}
		a.code = r.ExitCode()
		out.made = env.Now()
		return out.print(a, r)
	}
	return cmd
}

// chosenRules are the rules that the flag names: nil if it was not given, none of
// them for none.
func chosenRules(names []string) ([]string, error) {
	switch {
	case len(names) == 0:
		return nil, nil
	case slices.Equal(names, []string{"none"}):
		return []string{}, nil
	case slices.Equal(names, []string{"all"}):
		return jobs.AuditRules, nil
	case slices.Contains(names, "none") || slices.Contains(names, "all"):
		return nil, fault.Errorf(fault.Usage, "--rules %s: all and none stand alone", strings.Join(names, ","))
	}
	return names, nil
}

// stretch is a flag of a time of any length, like 2h or 3d; 0 for none.
type stretch time.Duration

func (d *stretch) String() string {
	if *d == 0 {
		return ""
	}
	return lengthText(time.Duration(*d).Milliseconds())
}
func (d *stretch) Type() string { return "duration" }
func (d *stretch) Set(v string) error {
	var n time.Duration
	days, err := strconv.ParseFloat(strings.TrimSuffix(v, "d"), 64)
	if err == nil && strings.HasSuffix(v, "d") && days > 0 && days <= 36500 {
		n = time.Duration(days * 24 * float64(time.Hour))
	} else if n, err = time.ParseDuration(v); err != nil || n < time.Millisecond {
		return fault.Errorf(fault.Usage, "want a duration like 90s, 2h or 3d, got %q", v)
	}
	*d = stretch(n)
	return nil
}

// share is a flag of a part, like 5%.
type share float64

func (s *share) String() string { return strconv.FormatFloat(100*float64(*s), 'g', 6, 64) + "%" }
func (s *share) Type() string   { return "N%" }
func (s *share) Set(v string) error {
	n, err := strconv.ParseFloat(strings.TrimSuffix(v, "%"), 64)
	if err != nil || !(n >= 0 && n <= 1000) || !strings.HasSuffix(v, "%") {
		return fault.Errorf(fault.Usage, "want percent like 5%%, got %q", v)
	}
	*s = share(n / 100)
	return nil
}

// allowance is a flag of a number of samples or a part of them, like 100 or 0.5%.
type allowance struct {
	jobs.Allowance
	set bool
}

func (m *allowance) value() *jobs.Allowance {
	if !m.set {
		return nil
	}
	return &m.Allowance
}

func (m *allowance) String() string {
	if !m.set {
		return ""
	}
	return strconv.FormatFloat(m.N, 'g', -1, 64) + map[bool]string{true: "%"}[m.Percent]
}
func (m *allowance) Type() string { return "N|N%" }
func (m *allowance) Set(v string) error {
	number, percent := strings.CutSuffix(v, "%")
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !(n >= 0 && n <= 1e18) || percent && n > 100 {
		return fault.Errorf(fault.Usage, "want a number of samples like 100, or percent like 0.5%%, got %q", v)
	}
	*m = allowance{jobs.Allowance{N: n, Percent: percent}, true}
	return nil
}

// printAudit writes a report for a person.
func printAudit(w io.Writer, r *jobs.AuditReport, limit, width int, colour bool) {
	if limit == 0 {
		limit = len(r.Points) + len(r.Gaps) + len(r.Quality)
	}
	zone, err := time.LoadLocation(r.Zone)
	if err != nil {
		zone = time.UTC
	}
	at := func(ms int64) string { return time.UnixMilli(ms).In(zone).Format("2006-01-02 15:04:05") }
	c := r.Coverage
	fmt.Fprintf(w, "audit of %s to %s (%s), %s", at(r.From.UnixMilli()), at(r.To.UnixMilli()), r.Zone, plural(c.Points, "point"))
	if r.Fast {
		fmt.Fprint(w, ", by the manifests alone (a NULL counts as a sample)")
	}
	fmt.Fprintf(w, ": %s\n", seconds(r.Elapsed))
	fmt.Fprintf(w, "%s of about %s samples that were due are missing", comma(c.Missing), comma(c.Expected))
	if c.Known > 0 {
		fmt.Fprintf(w, ", %s of them acknowledged", comma(c.Known))
	}
	fmt.Fprintf(w, "; %s are there", comma(c.Present))
	undue := int64(0)
	for i := range r.Points {
		if p := &r.Points[i]; p.Expected == nil {
			undue += p.Present
		}
	}
	if undue > 0 {
		fmt.Fprintf(w, ", %s of them of points without an interval", comma(undue))
	}
	fmt.Fprintln(w)
	if !r.Fast {
		fmt.Fprintf(w, "%s", plural(c.Gaps, "gap"))
		if c.Gaps > 0 {
			fmt.Fprintf(w, ", the longest %s", lengthText(c.LongestGap))
		}
		if c.KnownGaps > 0 {
			fmt.Fprintf(w, "; %s more acknowledged", comma(int64(c.KnownGaps)))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "days of points: %s whole, %s with holes, %s without a sample, %s not archived\n", comma(c.Whole), comma(c.Holes), comma(c.Empty), comma(c.NotArchived))
	printWorst(w, r, limit, width, colour)
	if len(r.Gaps) > 0 {
		gaps := slices.Clone(r.Gaps)
		slices.SortStableFunc(gaps, func(x, y jobs.Gap) int { return int(min(max(y.Length-x.Length, -1), 1)) })
		fmt.Fprintf(w, "\nThe longest gaps:\n")
		t := newTable("point", "kind", "after", "before", "length>", "missing>", "acknowledged")
		for _, g := range gaps[:min(limit, len(gaps))] {
			missing := "–"
			if g.Missing != nil {
				missing = comma(*g.Missing)
			}
			bound := func(ms *int64, edge int64) string {
				if ms == nil {
					return "(" + at(edge) + ")"
				}
				return at(*ms)
			}
			note := ""
			if g.Known {
				note = strings.TrimSpace("yes " + g.Note)
			}
			t.row(named(g.Point), g.Kind, bound(g.After, g.From), bound(g.Before, g.To), lengthText(g.Length), missing, note)
		}
		t.print(w)
		if n := len(gaps) - limit; n > 0 {
			fmt.Fprintf(w, "… and %s more (--limit 0, or -o gaps.csv)\n", comma(int64(n)))
		}
	}
	if len(r.Quality) > 0 {
		fmt.Fprintf(w, "\nValues to look at:\n")
		t := newTable("point", "rule", "from", "to", "what")
		for _, q := range r.Quality[:min(limit, len(r.Quality))] {
			t.row(named(q.Point), q.Rule, at(q.From), at(q.To), whole(q.Text))
		}
		t.print(w)
		if n := len(r.Quality) - limit; n > 0 {
			fmt.Fprintf(w, "… and %s more (--limit 0, or --json)\n", comma(int64(n)))
		}
	}
	for _, text := range r.Warnings {
		fmt.Fprintf(w, "\nwarning: %s\n", printableLine(text))
	}
	printFailures(w, r.Failed)
}

// printWorst lists the points of which something is missing, the worst first, each
// with a strip of its days.
func printWorst(w io.Writer, r *jobs.AuditReport, limit, width int, colour bool) {
	part := func(n int64, of *int64) float64 {
		if of == nil || *of == 0 {
			return 0
		}
		return float64(n) / float64(*of)
	}
	bad := make([]int, 0, len(r.Points))
	holes := make([]int, len(r.Points))
	for i, p := range r.Points {
		for _, d := range p.Days {
			switch d.State {
			case jobs.DayHoles, jobs.DayNotArchived, jobs.DayUnread:
				holes[i]++
			case jobs.DayEmpty:
				if p.Interval == nil || *p.Interval > 0 { // what reports changes only may be silent
					holes[i]++
				}
			}
		}
		if p.Missing > 0 || p.Gaps > 0 || holes[i] > 0 {
			bad = append(bad, i)
		}
	}
	if len(bad) == 0 {
		fmt.Fprintln(w, "nothing is missing")
		return
	}
	slices.SortStableFunc(bad, func(i, j int) int {
		x, y := r.Points[i], r.Points[j]
		if a, b := part(x.Missing-x.Known, x.Expected), part(y.Missing-y.Known, y.Expected); a != b {
			return int(min(max((b-a)*1e12, -1), 1))
		}
		if x.Longest != y.Longest {
			return int(min(max(y.Longest-x.Longest, -1), 1))
		}
		return holes[j] - holes[i]
	})
	shown := bad[:min(limit, len(bad))]
	fmt.Fprintf(w, "\n%s with something missing, the worst first:\n", plural(len(bad), "point"))
	name := 5
	for _, i := range shown {
		name = max(name, len([]rune(printable(named(r.Points[i].Name)))))
	}
	const columns = 9 + 12 + 6 + 12 // of coverage, missing, gaps, longest
	strip := max(10, width-name-columns-2)
	longest := "LONGEST"
	if r.Fast {
		longest = ""
	}
	fmt.Fprintf(w, "%-*s %8s %11s %5s %11s  %s\n", name, "POINT", "COVERAGE", "MISSING", "GAPS", longest, "DAYS")
	for _, i := range shown {
		p := r.Points[i]
		cover := "–"
		if p.Expected != nil && *p.Expected > 0 {
			cover = coverText(*p.Expected-p.Missing, *p.Expected)
		}
		long := ""
		if p.Longest > 0 {
			long = lengthText(p.Longest)
		}
		label := printable(named(p.Name))
		fmt.Fprintf(w, "%s%s %8s %11s %5s %11s  %s\n", label, strings.Repeat(" ", name-len([]rune(label))), cover, comma(p.Missing), comma(int64(p.Gaps)), long, heatStrip(p.Days, strip, colour))
	}
	if n := len(bad) - len(shown); n > 0 {
		fmt.Fprintf(w, "… and %s more (--limit 0 shows all)\n", comma(int64(n)))
	}
	fmt.Fprintf(w, "%s\n", stripLegend(len(r.DayStarts)-1, strip))
}

// coverText is a part in percent, rounded down: it is 100 only if all is there.
func coverText(there, due int64) string {
	return strconv.FormatFloat(math.Floor(float64(max(0, there))/float64(due)*1e4)/100, 'f', 2, 64) + "%"
}

// fills are the glyphs of a day with holes, by how much of it is there.
var fills = []rune("▁▂▃▄▅▆▇")

const (
	glyphWhole       = '█'
	glyphSome        = '▒'
	glyphEmpty       = '░'
	glyphNotArchived = '?'
	glyphUnread      = '!'
	glyphOutside     = ' '
)

func stripLegend(days, width int) string {
	per := (days + width - 1) / width
	each := "a day"
	if per > 1 {
		each = fmt.Sprintf("%d days", per)
	}
	return fmt.Sprintf("each sign is %s: █ whole, ▁▂▃▄▅▆▇ with holes, ░ without a sample, ? not archived, ! unreadable, ▒ no interval known", each)
}

// badness orders the states of days: a group of days shows its worst.
var badness = map[jobs.DayState]int{jobs.DayOutside: 0, jobs.DaySome: 1, jobs.DayWhole: 2, jobs.DayHoles: 3, jobs.DayEmpty: 4, jobs.DayNotArchived: 5, jobs.DayUnread: 6}

// heatStrip is a sign for each day, or for each group of as many days as fit the width.
func heatStrip(days []jobs.AuditDay, width int, colour bool) string {
	per := max(1, (len(days)+width-1)/width)
	var b strings.Builder
	last := ""
	for group := range slices.Chunk(days, per) {
		worst := group[0].State
		var present, expected int64
		for _, d := range group {
			if badness[d.State] > badness[worst] {
				worst = d.State
			}
			if d.State != jobs.DayOutside {
				present, expected = present+int64(d.Present), expected+int64(d.Expected)
			}
		}
		if worst == jobs.DayEmpty && present > 0 {
			worst = jobs.DayHoles // of a group that has some
		}
		glyph, code := glyphOutside, ""
		switch worst {
		case jobs.DayWhole:
			glyph, code = glyphWhole, "32"
		case jobs.DaySome:
			glyph, code = glyphSome, "32"
		case jobs.DayHoles:
			part := 0.5
			if expected > 0 {
				part = min(1, float64(present)/float64(expected))
			}
			glyph, code = fills[min(len(fills)-1, int(part*float64(len(fills))))], "33"
		case jobs.DayEmpty:
			glyph, code = glyphEmpty, "31"
		case jobs.DayNotArchived:
			glyph, code = glyphNotArchived, "35"
		case jobs.DayUnread:
			glyph, code = glyphUnread, "31"
		}
		if colour && code != last {
			b.WriteString("\x1b[" + code + "m") // without a code it is the end of a colour
			last = code
		}
		b.WriteRune(glyph)
	}
	if last != "" {
		b.WriteString("\x1b[m")
		return b.String()
	}
	return strings.TrimRight(b.String(), " ")
}

// lengthText writes a length of time with its two largest units: 2d 19h, 3m, 1.5s.
func lengthText(ms int64) string {
	const second, minute, hour, day = 1000, 60_000, 3_600_000, 86_400_000
	for _, r := range [][2]int64{{minute, second}, {hour, minute}, {day, hour}} {
		if ms >= r[0]-second/2 { // rounded to the smaller unit that is shown
			ms = (ms + r[1]/2) / r[1] * r[1]
		}
	}
	for _, u := range []struct {
		name, small string
		ms, rest    int64
	}{{"d", "h", day, hour}, {"h", "m", hour, minute}, {"m", "s", minute, second}} {
		if ms < u.ms {
			continue
		}
		text := fmt.Sprintf("%d%s", ms/u.ms, u.name)
		if rest := ms % u.ms / u.rest; rest > 0 {
			text += fmt.Sprintf(" %d%s", rest, u.small)
		}
		return text
	}
	return strconv.FormatFloat(float64(ms)/second, 'f', -1, 64) + "s"
}
