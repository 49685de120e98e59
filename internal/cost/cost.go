// Package cost is the arithmetic of capacity and cost: what a fleet of points asks of D1
// and R2 in a month, what that costs by a table of prices, and which limit it meets when.
// It reads nothing; what it is given is supposed or measured, and it says which.
//
// A month is 30 days, a GB 1e9 bytes. Each constant says where it is from: Cloudflare's
// documentation, the schema in sql/d1, or counters of Cloudflare's local runtime, with
// which a test compares what is told here (jobs/cost_integration_test.go).
package cost

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"etl/internal/fault"
)

// DaysPerMonth is a month of the calculation.
const DaysPerMonth = 30

// What a row takes in D1: a cell of the b-tree of timeseries, whose key is the whole row
// (WITHOUT ROWID), as https://www.sqlite.org/fileformat2.html has it.
const (
	cellBytes = 2 + 1 + // pointer to the cell, length of the payload
		1 + 5 + // length of the header, a type for each of five columns
		2 + // point_id: 128 to 32,767 (one byte fewer up to 127, one more beyond)
		6 + // timestamp: milliseconds since 1970 need 41 bits
		8 + // value: a double (a whole number takes 0 to 6 bytes)
		2 + // quality: 192 does not fit into a signed byte
		0 // flags: 0 is a type of its own
	// pageFill is how full pages get where each point grows at a place of its own;
	// TestRowBytes measures it.
	pageFill = 0.87
	// RowBytes is 31.0; of whole numbers it is 23.
	RowBytes = cellBytes / pageFill
	// indexBytes is a row of a further index on timeseries, alarmBytes one of the index of
	// alarms, markBytes and trimBytes one of the ledger, measured the same way.
	indexBytes = 14.0
	alarmBytes = 15.0
	markBytes  = 41.3
	trimBytes  = 11.1
)

// SampleBytes is what a sample takes in whole month files: 194 M samples of the fleet of
// docs/benchmarks.md. Of real sets there it is 0.22 to 1.43.
const SampleBytes = 1.008

// ManifestBytes is what a manifest takes for each point.
const ManifestBytes = 640

// D1Bytes is the largest database, in bytes. Cloudflare says 10 GB and not of which kind.
const D1Bytes = 10e9

// Load is what a fleet asks for. The zero value of a field is nothing; Default has what
// is supposed where nothing else is known.
type Load struct {
	Points         int     `json:"points"`
	SamplesPerDay  float64 `json:"samples_per_day"`  // of all points
	Retention      int     `json:"retention_days"`   // that D1 holds
	BytesPerRow    float64 `json:"bytes_per_row"`    // in D1
	BytesPerSample float64 `json:"bytes_per_sample"` // in R2
	Alarms         float64 `json:"alarm_share"`      // of the rows, which have an entry in the index of alarms
	Late           float64 `json:"late_share"`       // of the points, of which rows come late each day
	Indexes        int     `json:"further_indexes"`  // on timeseries, over all rows
	ReadsPerDay    float64 `json:"reads_per_day"`    // rows that others read: dashboards
	StatusPerDay   float64 `json:"status_per_day"`   // how often etl status looks
	VerifySample   float64 `json:"verify_sample"`    // share of the files that each night's verify --deep reads
	HotWindow      int     `json:"hot_window_days"`
	Years          int     `json:"years"`            // of history in R2
	HistoryDays    float64 `json:"history_days"`     // that R2 holds already
	ColdBytes      float64 `json:"cold_bytes"`       // that they take
	Looks          float64 `json:"quality_looks"`    // of etl status
	Rate           float64 `json:"requests_per_sec"` // that Cloudflare's API allows, on average
	Burst          float64 `json:"burst"`
}

// Default is the fleet of the source document: 4,500 points, one sample a minute.
func Default() Load {
	return Load{
		Points: 4500, SamplesPerDay: 4500 * 1440, Retention: 30, BytesPerRow: RowBytes, BytesPerSample: SampleBytes,
		Alarms: 0.01, Late: 0.01, ReadsPerDay: 10e6, StatusPerDay: 24, VerifySample: 0.04, HotWindow: 35, Years: 10, Looks: 5_000, Rate: 4, Burst: 200,
	}
}

// Validate refuses loads that make no sense.
func (l Load) Validate() error {
	var bad []string
	check := func(ok bool, what string) {
		if !ok {
			bad = append(bad, what)
		}
	}
	check(l.Points > 0 && l.Points <= 10_000_000, "from 1 to 10,000,000 points")
	check(l.SamplesPerDay >= 0 && l.SamplesPerDay < 1e15, "a number of samples a day")
	check(l.Retention > 0, "at least a day of retention")
	check(l.BytesPerRow > 0 && l.BytesPerSample > 0, "more than 0 bytes a row and a sample")
	for _, share := range []float64{l.Alarms, l.Late, l.VerifySample} {
		check(share >= 0 && share <= 1, "shares from 0 to 100 %")
	}
	check(l.Indexes >= 0 && l.Indexes <= 64, "from 0 to 64 further indexes")
	check(l.Years > 0 && l.Years <= 100, "from 1 to 100 years")
	check(l.ReadsPerDay >= 0 && l.ReadsPerDay < 1e15, "a number of rows for --reads-per-day")
	check(l.StatusPerDay >= 0 && l.StatusPerDay < 1e15, "a number of looks for --status-per-day")
	check(l.Rate > 0, "a rate above 0")
	if len(bad) == 0 {
		return nil
	}
	slices.Sort(bad)
	return fault.Errorf(fault.Usage, "cost: want %s", strings.Join(slices.Compact(bad), "; "))
}

// Price is what a unit of something costs beyond what is included, per month.
type Price struct {
	Name     string  `json:"name"`
	Dollars  float64 `json:"dollars"`  // for Per
	Per      float64 `json:"per"`      // units
	Included float64 `json:"included"` // units a month
	// Whole: what is beyond is billed in whole multiples of Per.
	Whole bool   `json:"whole,omitempty"`
	Unit  string `json:"unit"`
}

// bill is what n units cost a month, with what is included or without.
func (p Price) bill(n float64, free bool) float64 {
	if free {
		n = max(0, n-p.Included)
	}
	n /= p.Per
	if p.Whole {
		n = math.Ceil(n)
	}
	return n * p.Dollars
}

// Prices is a table of prices.
type Prices struct {
	Date  string  `json:"date"` // on which they were read
	Lines []Price `json:"prices"`
}

// Names of prices.
const (
	Plan      = "plan"
	D1Reads   = "d1-reads"
	D1Writes  = "d1-writes"
	D1Storage = "d1-storage"
	R2Storage = "r2-storage"
	R2ClassA  = "r2-class-a"
	R2ClassB  = "r2-class-b"
)

// Cloudflare are its prices on the Workers Paid plan, which a database of more than 500 MB
// needs (developers.cloudflare.com: d1/platform/pricing, r2/pricing, workers/platform/pricing).
func Cloudflare() Prices {
	return Prices{Date: "2026-10", Lines: []Price{
		{Plan, 5, 1, 0, false, "month"},
		{D1Reads, 0.001, 1e6, 25e9, false, "rows"},
		{D1Writes, 1, 1e6, 50e6, false, "rows"},
		{D1Storage, 0.75, 1e9, 5e9, false, "bytes"},
		{R2Storage, 0.015, 1e9, 10e9, true, "bytes"},
		{R2ClassA, 4.5, 1e6, 1e6, true, "operations"},
		{R2ClassB, 0.36, 1e6, 10e6, true, "operations"},
	}}
}

// Of returns a price by its name.
func (ps Prices) Of(name string) Price {
	for _, p := range ps.Lines {
		if p.Name == name {
			return p
		}
	}
	panic("no price " + name) // the names are constants
}

// Rows is what rows of D1 cost beyond what is included.
func (ps Prices) Rows(read, written float64) float64 {
	return ps.Of(D1Reads).bill(read, false) + ps.Of(D1Writes).bill(written, false)
}

// Set changes a price, or with NAME.included what is included of it, in units.
func (ps *Prices) Set(name, value string) error {
	v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if err != nil || !(v >= 0) || math.IsInf(v, 0) {
		return fault.Errorf(fault.Usage, "price %s: want a number, got %q", name, value)
	}
	base, included := strings.CutSuffix(strings.TrimSpace(name), ".included")
	for i := range ps.Lines {
		p := &ps.Lines[i]
		if p.Name != base {
			continue
		}
		if included {
			p.Included = v
		} else {
			p.Dollars = v
		}
		return nil
	}
	var names []string
	for _, p := range ps.Lines {
		names = append(names, p.Name)
	}
	return fault.Errorf(fault.Usage, "there is no price %q; they are %s, and each with .included behind it", base, strings.Join(names, ", "))
}

// Read changes prices as a file says: a line `NAME: VALUE` each, # begins a comment;
// `date: TEXT` says of when they are.
func (ps *Prices) Read(text string) error {
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return fault.Errorf(fault.Usage, "line %d: want NAME: VALUE", i+1)
		}
		if strings.TrimSpace(name) == "date" {
			ps.Date = strings.TrimSpace(value)
			continue
		}
		if err := ps.Set(name, value); err != nil {
			return fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return nil
}

// Usage is what is asked for and billed.
type Usage struct {
	RowsRead    float64 `json:"rows_read"`
	RowsWritten float64 `json:"rows_written"`
	Requests    float64 `json:"requests"` // to Cloudflare's API
	ClassA      float64 `json:"class_a"`
	ClassB      float64 `json:"class_b"`
}

func (u Usage) times(n float64) Usage {
	return Usage{u.RowsRead * n, u.RowsWritten * n, u.Requests * n, u.ClassA * n, u.ClassB * n}
}

// Add sums two usages.
func (u Usage) Add(o Usage) Usage {
	return Usage{u.RowsRead + o.RowsRead, u.RowsWritten + o.RowsWritten, u.Requests + o.Requests, u.ClassA + o.ClassA, u.ClassB + o.ClassB}
}

// How the archiving engine asks (jobs/plan.go, jobs/engine.go, internal/source/d1).
const (
	batchPoints = 512     // of a batch
	batchSlices = 2048    // (point, day)s of one, and of a confirmation
	pageRows    = 500_000 // of an answer of about 20 MiB
	firstPages  = 2       // until a page is as large as that
	// planReads are rows read for each point and runReads those of a run, beside the
	// rows of timeseries and the marks: listing, skip-scan, strays, claims, confirmations.
	planReads, runReads = 14.0, 10.0
	// fixedReads are rows of the schema and of the log, of each run.
	fixedReads = 400
	// fixedRequests: identify 3, points 3, marks and trims of two months 4, the log 3, strays 1.
	fixedRequests = 14
	logWrites     = 4 // a line, its index, a heartbeat, its end
)

// run is one archiving job: slices (point, day)s of points points in so many months, of
// which rows come, and files month files are written, merged of them with one that exists.
func (l Load) run(points, slices, rows, files, merged, months float64) Usage {
	perBatch := math.Min(batchPoints, math.Max(1, math.Floor(batchSlices*points*months/math.Max(1, slices))))
	batches := math.Ceil(points/perBatch) * months
	pages := batches
	if batches > 0 {
		pages = batches*math.Max(1, math.Ceil(rows/batches/pageRows)) + firstPages
	}
	return Usage{
		RowsRead:    rows + 3*slices + fixedReads,
		RowsWritten: 2*slices + logWrites, // the claim, the mark
		Requests:    fixedRequests + batches + pages + math.Ceil(slices/batchSlices),
		ClassA:      files + 2*months, // the manifest once or twice
		ClassB:      files + merged + 4*months + 2,
	}
}

// Nightly is the job of one night: the day of each point, and the (point, day)s of which
// rows came late.
func (l Load) Nightly() Usage {
	n := float64(l.Points)
	late := l.Late * n
	perSlice := l.SamplesPerDay / n
	u := l.run(n, n+late, l.SamplesPerDay+late*perSlice, n+late, n*(DaysPerMonth-1)/DaysPerMonth+late, 1)
	// The marks and trims of the window: which days are archived and marked.
	u.RowsRead += n * (planReads + runReads + float64(l.HotWindow) + math.Max(0, float64(l.HotWindow-l.Retention)))
	return u
}

// Status is one look of etl status, where R2 holds so many months: it lists the manifests and
// the rejects, and reads the manifest of each month (jobs.TestStatusOperations).
func (l Load) Status(months float64) Usage {
	n := float64(l.Points)
	looks := n * math.Min(96, math.Max(1, math.Floor(l.Looks/n)))
	if n > l.Looks {
		looks = l.Looks
	}
	return Usage{RowsRead: n*10 + n*float64(l.HotWindow) + looks + 150, Requests: 9, ClassA: 2, ClassB: months}
}

func (l Load) historyMonths() float64 { return math.Ceil(l.HistoryDays / DaysPerMonth) }

// Verify is one night's etl verify --deep --sample over so many months of files.
func (l Load) Verify(months float64) Usage {
	files := float64(l.Points) * months
	return Usage{
		RowsWritten: 3, Requests: 4,
		// All names once to find the months, and each month's again, by the thousand.
		ClassA: math.Ceil(files/1000) + months*math.Ceil(float64(l.Points)/1000) + 2,
		ClassB: months + files*l.VerifySample + 1,
	}
}

// Sensors is what a day of sensors writes and retention deletes. An inserted row is a row
// read too: the trigger looks for a mark; a deleted one is read four times, for two
// statements of the retention trigger choose it.
func (l Load) Sensors() (inserts, deletes Usage) {
	entries := 1 + l.Alarms + float64(l.Indexes) // the row, and in indexes
	n := float64(l.Points)
	inserts = Usage{RowsRead: l.SamplesPerDay, RowsWritten: l.SamplesPerDay*entries + l.Late*n} // the late ones take a mark away
	deletes = Usage{RowsRead: 4 * l.SamplesPerDay, RowsWritten: l.SamplesPerDay*entries + 2*n}  // archive_trims, and the mark
	return inserts, deletes
}

// D1Size is how large D1 is in the steady state, after so many years of the ledger.
func (l Load) D1Size(years float64) Size {
	rows := l.SamplesPerDay * float64(l.Retention)
	s := Size{
		Rows: rows, Data: rows * l.BytesPerRow, Indexes: rows * (l.Alarms*alarmBytes + float64(l.Indexes)*indexBytes),
		Ledger: float64(l.Points) * 365 * years * (markBytes + trimBytes),
	}
	s.Total = s.Data + s.Indexes + s.Ledger
	return s
}

// Size is the size of a database in bytes.
type Size struct {
	Rows    float64 `json:"rows"`
	Data    float64 `json:"data_bytes"`
	Indexes float64 `json:"index_bytes"`
	Ledger  float64 `json:"ledger_bytes"`
	Total   float64 `json:"total_bytes"`
}

// ColdPerMonth is what R2 grows by a month, in bytes.
func (l Load) ColdPerMonth() float64 {
	return l.SamplesPerDay*DaysPerMonth*l.BytesPerSample + float64(l.Points)*ManifestBytes
}

// coldAfter is what R2 holds after so many months from now.
func (l Load) coldAfter(months float64) float64 { return l.ColdBytes + months*l.ColdPerMonth() }

// Part is one asker and what it asks for in a month.
type Part struct {
	Name string `json:"name"`
	Usage
}

// Line is one line of the bill of a month.
type Line struct {
	Name     string  `json:"name"` // of its price
	Usage    float64 `json:"usage"`
	Unit     string  `json:"unit"`
	Included float64 `json:"included"`
	Dollars  float64 `json:"dollars"`     // beyond what is included
	Full     float64 `json:"dollars_all"` // if nothing were included
}

// Year is R2 at the end of a year.
type Year struct {
	Year    int     `json:"year"`
	Bytes   float64 `json:"bytes"`
	Dollars float64 `json:"dollars_a_month"`
	Full    float64 `json:"dollars_a_month_all"`
	Sum     float64 `json:"dollars_until_then"` // of all its months so far
	ClassA  float64 `json:"class_a_a_month"`
	ClassB  float64 `json:"class_b_a_month"`
}

// Ceiling is a limit and when it is met.
type Ceiling struct {
	Name string `json:"name"`
	Text string `json:"text"`
	Hit  bool   `json:"hit"` // it is met in the steady state, or within the years
}

// Report is the whole calculation.
type Report struct {
	Load     Load      `json:"load"`
	Prices   Prices    `json:"prices"`
	D1       Size      `json:"d1"` // in the steady state, after a year
	Parts    []Part    `json:"parts"`
	Lines    []Line    `json:"lines"` // of a month, after a year
	Dollars  float64   `json:"dollars_a_month"`
	Full     float64   `json:"dollars_a_month_all"`
	Years    []Year    `json:"years"`
	Ceilings []Ceiling `json:"limits"`
	Nightly  Usage     `json:"nightly"`
	// NightlyMinutes is how long the requests of a night take at the API's rate.
	NightlyMinutes float64 `json:"nightly_minutes"`
}

// Compute works it all out.
func Compute(l Load, ps Prices) (Report, error) {
	if err := l.Validate(); err != nil {
		return Report{}, err
	}
	r := Report{Load: l, Prices: ps, D1: l.D1Size(1), Nightly: l.Nightly()}
	r.NightlyMinutes = minutes(r.Nightly.Requests, l)
	r.Parts = l.parts(12 + l.historyMonths())
	var sum Usage
	for _, p := range r.Parts {
		sum = sum.Add(p.Usage)
	}
	for _, u := range []struct {
		name string
		n    float64
	}{{Plan, 1}, {D1Reads, sum.RowsRead}, {D1Writes, sum.RowsWritten}, {D1Storage, r.D1.Total}, {R2Storage, l.coldAfter(12)}, {R2ClassA, sum.ClassA}, {R2ClassB, sum.ClassB}} {
		p := ps.Of(u.name)
		line := Line{Name: p.Name, Usage: u.n, Unit: p.Unit, Included: p.Included, Dollars: p.bill(u.n, true), Full: p.bill(u.n, false)}
		r.Lines = append(r.Lines, line)
		r.Dollars, r.Full = r.Dollars+line.Dollars, r.Full+line.Full
	}
	r.years()
	r.ceilings(sum)
	return r, nil
}

// parts are the askers of a month, where R2 holds so many months.
func (l Load) parts(months float64) []Part {
	inserts, deletes := l.Sensors()
	return []Part{
		{"sensors write", inserts.times(DaysPerMonth)},
		{"retention deletes", deletes.times(DaysPerMonth)},
		{"etl archive, each night", l.Nightly().times(DaysPerMonth)},
		{fmt.Sprintf("etl verify --deep --sample %g%%, each night", 100*l.VerifySample), l.Verify(months).times(DaysPerMonth)},
		{fmt.Sprintf("etl status, %g a day", l.StatusPerDay), l.Status(months).times(DaysPerMonth * l.StatusPerDay)},
		{"other readers", Usage{RowsRead: l.ReadsPerDay * DaysPerMonth}},
	}
}

func (r *Report) years() {
	storage, a, b := r.Prices.Of(R2Storage), r.Prices.Of(R2ClassA), r.Prices.Of(R2ClassB)
	sum := 0.0
	for y := 1; y <= r.Load.Years; y++ {
		var last Year
		for m := 12*(y-1) + 1; m <= 12*y; m++ {
			var u Usage
			for _, p := range r.Load.parts(float64(m) + r.Load.historyMonths()) {
				u = u.Add(p.Usage)
			}
			bytes := r.Load.coldAfter(float64(m))
			last = Year{Year: y, Bytes: bytes, ClassA: u.ClassA, ClassB: u.ClassB,
				Dollars: storage.bill(bytes, true) + a.bill(u.ClassA, true) + b.bill(u.ClassB, true),
				Full:    storage.bill(bytes, false) + a.bill(u.ClassA, false) + b.bill(u.ClassB, false)}
			sum += last.Dollars
		}
		last.Sum = sum
		r.Years = append(r.Years, last)
	}
}

func minutes(requests float64, l Load) float64 {
	return math.Max(0, requests-l.Burst) / l.Rate / 60
}

// ceilings are the limits that are met, and when.
func (r *Report) ceilings(month Usage) {
	l := r.Load
	add := func(name string, hit bool, format string, a ...any) {
		r.Ceilings = append(r.Ceilings, Ceiling{name, fmt.Sprintf(format, a...), hit})
	}
	perDay := l.SamplesPerDay * (l.BytesPerRow + l.Alarms*alarmBytes + float64(l.Indexes)*indexBytes)
	size := r.D1.Total
	if size >= D1Bytes {
		days := math.Floor(D1Bytes / perDay)
		add("D1, 10 GB", true, "%.1f GB would be needed: full after %.0f days; keep fewer days, write fewer rows, or split the points over databases", size/1e9, days)
	} else {
		add("D1, 10 GB", false, "%.1f GB in the steady state, %.0f %%; if archiving stops it is full %.0f days later; %s points would fill it",
			size/1e9, 100*size/D1Bytes, math.Floor((D1Bytes-size)/perDay), Comma(math.Floor(float64(l.Points)*D1Bytes/size)))
	}
	const ledgerYears = 10
	add("the ledger", l.D1Size(ledgerYears).Total >= D1Bytes, "marks are kept: %.2f GB a year, %.1f GB in all after %d years", l.D1Size(1).Ledger/1e9, l.D1Size(ledgerYears).Total/1e9, ledgerYears)
	free := 100_000.0 // rows written a day on the free plan, whose database holds 500 MB
	add("D1's free plan", month.RowsWritten/DaysPerMonth > free || size > 500e6, "%s rows written a day of 100,000, %.2f GB of 0.5", Comma(month.RowsWritten/DaysPerMonth), size/1e9)
	w := r.Prices.Of(D1Writes)
	if over := month.RowsWritten - w.Included; over > 0 {
		add("included rows written", true, "%s of %s a month: used up after %.1f days", Comma(month.RowsWritten), Comma(w.Included), DaysPerMonth*w.Included/month.RowsWritten)
	} else {
		add("included rows written", false, "%s of %s a month", Comma(month.RowsWritten), Comma(w.Included))
	}
	rd := r.Prices.Of(D1Reads)
	add("included rows read", month.RowsRead > rd.Included, "%s of %s a month (%.1f %%)", Comma(month.RowsRead), Comma(rd.Included), 100*month.RowsRead/math.Max(1, rd.Included))
	add("API, 1,200 requests in 5 min", r.Nightly.Requests > l.Burst, "%s requests a night, %.1f min at %g a second beyond a burst of %g", Comma(r.Nightly.Requests), r.NightlyMinutes, l.Rate, l.Burst)
	for _, c := range []struct {
		name, price string
		at          func(months float64) float64
	}{
		{"R2's included storage", R2Storage, l.coldAfter},
		{"R2's included Class A", R2ClassA, func(m float64) float64 { return l.ops(m).ClassA }},
		{"R2's included Class B", R2ClassB, func(m float64) float64 { return l.ops(m).ClassB }},
	} {
		p := r.Prices.Of(c.price)
		months := 12 * l.Years
		at := -1
		for m := range months + 1 {
			if c.at(float64(m)) > p.Included {
				at = m
				break
			}
		}
		unit := func(v float64) string {
			if p.Unit == "bytes" {
				return fmt.Sprintf("%.1f GB", v/1e9)
			}
			return Comma(v)
		}
		switch {
		case at == 0:
			add(c.name, true, "%s of %s: used up from the beginning", unit(c.at(0)), unit(p.Included))
		case at > 0:
			add(c.name, true, "%s of %s: used up after %d months", unit(c.at(float64(at))), unit(p.Included), at)
		default:
			add(c.name, false, "%s of %s after %d years", unit(c.at(float64(months))), unit(p.Included), l.Years)
		}
	}
}

// ops are the operations of a month, where R2 holds so many months more than today.
func (l Load) ops(months float64) (u Usage) {
	for _, p := range l.parts(months + l.historyMonths()) {
		u = u.Add(p.Usage)
	}
	return u
}

// Backfill is what archiving a range of history asks for.
type Backfill struct {
	Days    int     `json:"days"`
	Months  int     `json:"months"` // that they touch
	Points  int     `json:"points"`
	Samples float64 `json:"samples"`
	Usage
	Minutes float64 `json:"minutes"` // of the requests, at the API's rate
	Bytes   float64 `json:"bytes"`   // of month files
	Dollars float64 `json:"dollars"` // if all that is included is used up
}

// ComputeBackfill is what it takes to archive days, in so many months, of all points.
func ComputeBackfill(l Load, ps Prices, days, months int) (Backfill, error) {
	if err := l.Validate(); err != nil {
		return Backfill{}, err
	}
	if days < 1 || months < 1 || months > days {
		return Backfill{}, fault.Errorf(fault.Usage, "cost: want at least a day to backfill")
	}
	n := float64(l.Points)
	b := Backfill{Days: days, Months: months, Points: l.Points, Samples: l.SamplesPerDay * float64(days)}
	b.Usage = l.run(n, n*float64(days), b.Samples, n*float64(months), 0, float64(months))
	// The days archived already are looked up in the manifests; of the ledger only the
	// trims are, which are none as a rule.
	b.RowsRead += n * (planReads + runReads)
	b.Requests += float64(months) - 4
	b.ClassA++ // the listing of a month without a manifest
	b.ClassB += float64(months)
	b.Minutes = minutes(b.Requests, l)
	b.Bytes = b.Samples*l.BytesPerSample + n*float64(months)*ManifestBytes
	b.Dollars = ps.Rows(b.RowsRead, b.RowsWritten) +
		b.ClassA/1e6*ps.Of(R2ClassA).Dollars + b.ClassB/1e6*ps.Of(R2ClassB).Dollars
	return b, nil
}

// Comma writes a whole number with its thousands apart.
func Comma(v float64) string {
	s := strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	neg := strings.HasPrefix(s, "-")
	s = strings.TrimPrefix(s, "-")
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if neg {
		s = "-" + s
	}
	return s
}
