package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"etl/internal/cost"
	"etl/internal/fault"
	"etl/internal/utc"
	"etl/jobs"
)

// costing are the flags of cost.
type costing struct {
	places
	span
	load      cost.Load
	points    int
	interval  wait
	retention days
	perRow    string
	perSample string
	alarms    percentage
	late      percentage
	sample    percentage
	prices    string
	price     []string
	backfill  bool
}

// CostReport is the result of cost.
type costReport struct {
	cost.Report
	// Origins say of the numbers of the load that are no default where they are from:
	// measured, or the flag.
	Origins  map[string]string `json:"origins"`
	Measured *jobs.Measured    `json:"measured,omitempty"`
	Backfill *cost.Backfill    `json:"backfill,omitempty"`
}

func (a *app) cost() *cobra.Command {
	c := costing{load: cost.Default()}
	cmd := &cobra.Command{
		Use:   "cost",
		Short: "Work out capacity and cost: rows, bytes, operations, dollars, limits",
		Long: `cost works out what a fleet asks of D1 and R2 in a month, what that costs by
Cloudflare's prices, and which limit it meets when. A month is 30 days.

Where a source or a store is set, the number of points, samples a day, bytes a sample and
what R2 holds are measured: of D1 its points and its size, of the store its manifests.
With --points-count nothing is measured, but for --bytes-per-sample auto with a store.
The rest is supposed, as the fleet of 4,500 points a minute of the design.

--backfill with a range works out what archiving these days takes, once.

--price NAME=VALUE changes a price, NAME.included=VALUE what is included of it; --prices
FILE has a line NAME: VALUE for each. docs/costs.md has the arithmetic.`,
		Example: `  etl cost
  etl cost --points-count 10000 --interval 60s --retention 30d --bytes-per-sample auto
  etl cost --backfill --from 2023-01-01 --to 2024-01-01
  etl cost --price d1-writes=0.8 --price d1-writes.included=0 --json`,
	}
	c.addSource(cmd)
	c.addStore(cmd)
	c.addNoState(cmd)
	c.span.add(cmd)
	f := cmd.Flags()
	l := &c.load
	f.IntVar(&c.points, "points-count", 0, "suppose so many points (default: measured, or 4500)")
	c.interval = wait(time.Minute)
	f.Var(&c.interval, "interval", "suppose a sample of each point every so often")
	f.Lookup("interval").DefValue = "measured, or 1m"
	c.retention = days(l.Retention)
	f.Var(&c.retention, "retention", "days that D1 holds")
	f.StringVar(&c.perRow, "bytes-per-row", "auto", "what a row takes in D1, in `BYTES`; auto is 31, of doubles of full precision")
	f.StringVar(&c.perSample, "bytes-per-sample", "auto", "what a sample takes in R2, in `BYTES`; auto is measured of the store, or 1.008")
	c.alarms, c.late, c.sample = percentage(l.Alarms), percentage(l.Late), percentage(l.VerifySample)
	f.Var(&c.alarms, "alarms", "share of rows in alarm, which are in an index too")
	f.Var(&c.late, "late", "share of points of which rows come late each day")
	f.IntVar(&l.Indexes, "indexes", 0, "further indexes on timeseries, `N` of all rows")
	f.Float64Var(&l.ReadsPerDay, "reads-per-day", l.ReadsPerDay, "rows that dashboards and the like read a day, `N`")
	f.Float64Var(&l.StatusPerDay, "status-per-day", l.StatusPerDay, "how often etl status looks, `N` times a day")
	f.Var(&c.sample, "verify-sample", "share of the files that each night's verify --deep --sample reads")
	f.IntVar(&l.Years, "years", l.Years, "years of R2 to look ahead, `N`")
	f.StringVar(&c.prices, "prices", "", "`FILE` of prices: a line NAME: VALUE each")
	f.StringArrayVar(&c.price, "price", nil, "a price, `NAME=VALUE`; may be given again")
	f.BoolVar(&c.backfill, "backfill", false, "what archiving a range takes, once; with --from and --to, --month or --last")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.runCost(cmd, &c) }
	return cmd
}

func (a *app) runCost(cmd *cobra.Command, c *costing) error {
	if err := c.resolve(a, cmd); err != nil {
		return err
	}
	ps, err := c.table()
	if err != nil {
		return err
	}
	now := c.clock()
	days, err := c.span.days(0, utc.DayOfTime(now()))
	if err != nil {
		return err
	}
	if c.backfill == (days == utc.Days{}) {
		return fault.Hint(fault.Errorf(fault.Usage, "--backfill and a range of days go together"), "etl cost --backfill --from 2023-01-01 --to 2024-01-01 (--to is exclusive)")
	}
	r := costReport{Origins: make(map[string]string)}
	if r.Measured, err = a.measure(cmd, c); err != nil {
		return err
	}
	if r.Measured != nil {
		for _, name := range r.Measured.Apply(&c.load) {
			r.Origins[name] = "measured"
		}
	}
	if err := c.suppose(cmd, r.Origins); err != nil {
		return err
	}
	if r.Report, err = cost.Compute(c.load, ps); err != nil {
		return err
	}
	if c.backfill {
		b, err := cost.ComputeBackfill(c.load, ps, days.Len(), len(days.Months()))
		if err != nil {
			return err
		}
		r.Backfill = &b
		return a.print(r, func(w io.Writer) { printBackfillCost(w, r, days) })
	}
	return a.print(r, func(w io.Writer) { printCost(w, r) })
}

// measure looks at what is set of both tiers, unless a number of points is supposed.
func (a *app) measure(cmd *cobra.Command, c *costing) (*jobs.Measured, error) {
	supposed := cmd.Flags().Changed("points-count")
	if supposed {
		c.source, c.noSource = "", true
	}
	if !c.hasSource() && (c.store == "" || supposed && c.perSample != "auto") {
		return nil, nil
	}
	env, not, done, err := c.places.openEither(cmd, a)
	if err != nil {
		return nil, err
	}
	defer done()
	if supposed && !cmd.Flags().Changed("store") && fault.Is(not.store, fault.NotExist) {
		return nil, nil // a store that is set for other commands, and not made yet
	}
	if err := cmp.Or(not.source, not.store); err != nil {
		return nil, err
	}
	m, err := jobs.MeasureLoad(cmd.Context(), env)
	if err != nil {
		return nil, err
	}
	if supposed {
		m = jobs.Measured{SampleBytes: m.SampleBytes}
	}
	return &m, nil
}

// suppose puts the flags that are given into the load, over what was measured.
func (c *costing) suppose(cmd *cobra.Command, origins map[string]string) (err error) {
	l := &c.load
	given := func(flag, field string) bool {
		if !cmd.Flags().Changed(flag) {
			return false
		}
		origins[field] = "--" + flag
		return true
	}
	if given("points-count", "points") {
		if c.points < 1 {
			return fault.Errorf(fault.Usage, "--points-count: want at least 1 point, got %d", c.points)
		}
		l.Points = c.points
	}
	if given("interval", "samples_per_day") || origins["points"] == "--points-count" {
		l.SamplesPerDay = float64(l.Points) * 86400 / time.Duration(c.interval).Seconds()
	}
	for _, v := range []struct {
		flag, field, value string
		to                 *float64
	}{{"bytes-per-row", "bytes_per_row", c.perRow, &l.BytesPerRow}, {"bytes-per-sample", "bytes_per_sample", c.perSample, &l.BytesPerSample}} {
		if v.value == "auto" {
			continue
		}
		origins[v.field] = "--" + v.flag
		if *v.to, err = strconv.ParseFloat(v.value, 64); err != nil || !(*v.to > 0 && *v.to < 1e6) {
			return fault.Errorf(fault.Usage, "--%s: want auto, or a number of bytes, got %q", v.flag, v.value)
		}
	}
	l.Retention, l.Alarms, l.Late, l.VerifySample = int(c.retention), float64(c.alarms), float64(c.late), float64(c.sample)
	l.Rate, l.Burst = float64(c.rate), float64(c.burst)
	for _, v := range [][2]string{{"retention", "retention_days"}, {"alarms", "alarm_share"}, {"late", "late_share"}, {"indexes", "further_indexes"},
		{"reads-per-day", "reads_per_day"}, {"status-per-day", "status_per_day"}, {"verify-sample", "verify_sample"}, {"years", "years"}} {
		given(v[0], v[1])
	}
	return nil
}

// table is the table of prices with what the flags change of it.
func (c *costing) table() (cost.Prices, error) {
	ps := cost.Cloudflare()
	if c.prices != "" {
		text, err := os.ReadFile(c.prices)
		if err == nil {
			err = ps.Read(string(text))
		}
		if err != nil {
			return ps, fault.Errorf(fault.Usage, "--prices %s: %w", c.prices, err)
		}
	}
	for _, p := range c.price {
		name, value, ok := strings.Cut(p, "=")
		if !ok {
			return ps, fault.Errorf(fault.Usage, "--price %q: want NAME=VALUE", p)
		}
		if err := ps.Set(name, value); err != nil {
			return ps, fault.Errorf(fault.Usage, "--price: %w", err)
		}
	}
	return ps, nil
}

func printLoad(w io.Writer, r costReport) {
	l := r.Load
	fmt.Fprintf(w, "%s points, %s samples a day; D1 holds %d days at %.1f B a row, R2 %.3f B a sample\n",
		cost.Comma(float64(l.Points)), cost.Comma(l.SamplesPerDay), l.Retention, l.BytesPerRow, l.BytesPerSample)
	byOrigin := make(map[string][]string)
	for _, field := range slices.Sorted(maps.Keys(r.Origins)) {
		o := r.Origins[field]
		byOrigin[o] = append(byOrigin[o], strings.ReplaceAll(field, "_", " "))
	}
	for _, o := range slices.Sorted(maps.Keys(byOrigin)) {
		fmt.Fprintf(w, "%s: %s\n", o, strings.Join(byOrigin[o], ", "))
	}
	if len(r.Origins) == 0 {
		fmt.Fprintln(w, "nothing was measured: this is the fleet of the design")
	}
	if r.Measured != nil && r.Measured.D1Bytes > 0 {
		fmt.Fprintf(w, "D1 takes %s now\n", gigabytes(float64(r.Measured.D1Bytes)))
	}
}

func gigabytes(n float64) string { return fmt.Sprintf("%.2f GB", n/1e9) }

// units writes a number of units for a person.
func units(n float64, unit string) string {
	switch {
	case unit == "bytes":
		return gigabytes(n)
	case unit == "month":
		return ""
	}
	return cost.Comma(n)
}

func printCost(w io.Writer, r costReport) {
	printLoad(w, r)
	fmt.Fprintf(w, "\nD1 in the steady state: %s rows, %s; %s of them indexes, %s the ledger after a year\n\n", cost.Comma(r.D1.Rows), gigabytes(r.D1.Total), gigabytes(r.D1.Indexes), gigabytes(r.D1.Ledger))
	t := newTable("a month asks for", "rows written>", "rows read>", "requests>", "class a>", "class b>")
	for _, p := range r.Parts {
		t.row(whole(p.Name), cost.Comma(p.RowsWritten), cost.Comma(p.RowsRead), cost.Comma(p.Requests), cost.Comma(p.ClassA), cost.Comma(p.ClassB))
	}
	t.print(w)
	fmt.Fprintln(w)
	t = newTable("price", "a month>", "included>", "dollars>", "nothing included>")
	for _, l := range r.Lines {
		included := units(l.Included, l.Unit)
		t.row(l.Name, units(l.Usage, l.Unit), included, fmt.Sprintf("$%.2f", l.Dollars), fmt.Sprintf("$%.2f", l.Full))
	}
	t.row("total", "", "", fmt.Sprintf("$%.2f", r.Dollars), fmt.Sprintf("$%.2f", r.Full))
	t.print(w)
	fmt.Fprintf(w, "prices of %s; R2 after a year\n\n", r.Prices.Date)
	t = newTable("r2 after", "holds>", "class a>", "class b>", "a month>", "until then>")
	for _, y := range r.Years {
		if y.Year == 1 || y.Year%5 == 0 || y.Year == len(r.Years) {
			t.row(fmt.Sprintf("year %d", y.Year), gigabytes(y.Bytes), cost.Comma(y.ClassA), cost.Comma(y.ClassB), fmt.Sprintf("$%.2f", y.Dollars), fmt.Sprintf("$%.2f", y.Sum))
		}
	}
	t.print(w)
	fmt.Fprintln(w)
	t = newTable("limit", "met", "")
	for _, c := range r.Ceilings {
		met := ""
		if c.Hit {
			met = "yes"
		}
		t.row(whole(c.Name), met, whole(c.Text))
	}
	t.print(w)
	if r.Measured != nil {
		printBilled(w, r.Measured.Billed)
	}
}

func printBackfillCost(w io.Writer, r costReport, days utc.Days) {
	printLoad(w, r)
	b := r.Backfill
	fmt.Fprintf(w, "\nA backfill from %s to %s, both included (%d days, %d months):\n", days.From, days.To-1, b.Days, b.Months)
	t := newTable("asks for", "")
	t.row("samples", cost.Comma(b.Samples))
	t.row("requests to D1", fmt.Sprintf("%s, %s at the API rate, or as long as D1 takes", cost.Comma(b.Requests), minutes(b.Minutes)))
	t.row("rows read", cost.Comma(b.RowsRead))
	t.row("rows written", cost.Comma(b.RowsWritten)+", the ledger")
	t.row("R2 class A", cost.Comma(b.ClassA))
	t.row("R2 class B", cost.Comma(b.ClassB))
	t.row("R2 storage", gigabytes(b.Bytes))
	t.row("dollars", fmt.Sprintf("%s, if nothing of what is included is left", dollars(b.Dollars)))
	t.print(w)
	if r.Measured != nil {
		printBilled(w, r.Measured.Billed)
	}
}

// percentage is a flag of a share, like 1%.
type percentage float64

func (v *percentage) String() string {
	return strconv.FormatFloat(100*float64(*v), 'g', 6, 64) + "%"
}
func (v *percentage) Type() string { return "N%" }
func (v *percentage) Set(s string) error {
	n, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(s), "%"), 64)
	if err != nil || !(n >= 0 && n <= 100) {
		return fault.Errorf(fault.Usage, "want a percentage from 0%% to 100%%, got %q", s)
	}
	*v = percentage(n / 100)
	return nil
}
