package jobs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/utc"
	"etl/manifests"
)

// VerifyOptions say what to verify; the zero value is every month, names and
// sizes only.
type VerifyOptions struct {
	Days   utc.Days // the months that it touches; the zero value is all
	Points Points   // Group needs Env.Source
	// Deep reads every byte: SHA-256, structure, order, uniqueness, point and
	// month, samples per day, hash of the rows.
	Deep bool
	// Against compares with Env.Source on Days, by default those of the hot window.
	Against   Against
	Grace     time.Duration // as archive has it, default 1 h
	HotWindow int           // likewise, in days, default 35
	// Sample is how many percent of the month files Deep and Against look at; 0
	// and 100 are all. See inSample.
	Sample int
	// Turn numbers the share that Sample looks at, 0 for the day's: successive
	// ones look at successive shares.
	Turn int64
	// Revoke deletes the marks of (point, day)s that are found not to be whole. It
	// needs Env.Ledger and is all that Verify ever writes.
	Revoke         bool
	Workers        int // files at a time, default 4
	ExtractWorkers int // queries at a time, default 2
}

// Against says how to compare with the source.
type Against string

const (
	// AgainstRows compares rows bit for bit.
	AgainstRows Against = "rows"
	// AgainstCounts reads the rows only of days that have more of them in the
	// source than in the archive. The source counts all of them, but sends numbers.
	AgainstCounts Against = "counts"
)

func (o *VerifyOptions) defaults() {
	if o.Grace == 0 {
		o.Grace = Grace
	}
	if o.HotWindow == 0 {
		o.HotWindow = HotWindow
	}
	if o.Workers == 0 {
		o.Workers = 4
	}
	if o.ExtractWorkers == 0 {
		o.ExtractWorkers = 2
	}
	if o.Sample == 100 {
		o.Sample = 0
	}
}

func (o *VerifyOptions) validate(env Env) error {
	switch {
	case o.Against != "" && o.Against != AgainstRows && o.Against != AgainstCounts:
		return fault.Errorf(fault.Usage, "--against-source: want rows or counts, got %q", string(o.Against))
	case o.Sample < 0 || o.Sample > 100:
		return fault.Errorf(fault.Usage, "--sample: want 1 to 100 percent, got %d", o.Sample)
	case o.Sample > 0 && !o.Deep && o.Against == "":
		return fault.Hint(fault.Errorf(fault.Usage, "--sample: names and sizes are compared by listing, of which a part costs as much as the whole"),
			"it goes with --deep or --against-source")
	case o.Against != "" && env.Source == nil:
		return fault.Errorf(fault.Usage, "--against-source: there is no source; give --source")
	case o.Revoke && env.Ledger == nil:
		return fault.Errorf(fault.Usage, "--revoke: the marks are in the ledger of the source; give --source, which must have one (`etl migrate`)")
	case o.Points.Group != "" && env.Source == nil:
		return fault.Errorf(fault.Usage, "--group %s: groups are in the source; give --source too", o.Points.Group)
	}
	return nil
}

// Severity of a finding.
type Severity string

const (
	Info    Severity = "info"    // normal while a job runs, or mended
	Notice  Severity = "finding" // something to look at; no archived sample is lost
	Damaged Severity = "corrupt" // archived samples can not be read
)

// Finding is one thing that verify found. The codes:
//
//	manifest        a manifest is damaged, or lacks what it must have
//	missing         a month file is not there
//	corrupt         a month file is damaged, or not what its manifest says
//	unreadable      the store can not read an object
//	pending         a whole month file that is newer than the manifest
//	orphan          a month file that no manifest names, nor will
//	foreign         an object among the month files that is none
//	version         the store names versions otherwise than the manifest does
//	reject, points  a file of rejected rows, or the catalog, is damaged
//	empty           nothing was ever archived, or nothing of the days and points chosen
//	source-missing  the source has rows that the archive lacks
//	source-differs  the source has other rows than the archive
//	waiting         the same, on days that the next archive takes anyway
//	mark            the ledger says of a (point, day) that it is safe, and it is not
type Finding struct {
	Severity Severity  `json:"severity"`
	Code     string    `json:"code"`
	Month    string    `json:"month,omitempty"`
	PointID  int32     `json:"point_id,omitempty"`
	Point    string    `json:"point,omitempty"`
	Path     string    `json:"path,omitempty"`
	Days     []utc.Day `json:"days,omitempty"` // that it concerns, if not the whole file
	Text     string    `json:"text"`
	Remedy   string    `json:"remedy,omitempty"`
}

// VerifyReport is the result of a verification.
type VerifyReport struct {
	Deep    bool    `json:"deep"`
	Against Against `json:"against_source,omitempty"`
	Sample  int     `json:"sample_percent,omitempty"`
	Months  int     `json:"months"`
	Points  int64   `json:"point_months"`
	Files   int64   `json:"files"`
	Bytes   int64   `json:"bytes"` // of the month files, as the manifests say
	Samples int64   `json:"samples"`
	// FilesRead and Read are what was read of the store.
	FilesRead int64 `json:"files_read"`
	Read      int64 `json:"bytes_read"`
	Rejects   int64 `json:"reject_files"`
	// Compared (point, day)s, and the rows of them that the source has.
	Compared int64 `json:"point_days_compared,omitempty"`
	HotRows  int64 `json:"source_rows,omitempty"`
	// Waiting are those of them that differ and that the next archive takes.
	Waiting  int64         `json:"point_days_waiting,omitempty"`
	Revoked  int64         `json:"marks_revoked,omitempty"`
	Findings []Finding     `json:"findings"`
	Billed   *source.Usage `json:"billed,omitempty"`
	Elapsed  float64       `json:"elapsed_seconds"`
}

// ExitCode is 4 if archived samples are damaged, 3 if there is another finding, else 0.
func (r *VerifyReport) ExitCode() int {
	code := fault.ExitOK
	for _, f := range r.Findings {
		switch f.Severity {
		case Damaged:
			code = fault.Worse(code, fault.ExitCorrupt)
		case Notice:
			code = fault.Worse(code, fault.ExitFindings)
		}
	}
	return code
}

const (
	// pendingFor is how long a file may be newer than the manifest before that is a finding.
	pendingFor = time.Hour
	// maxUnreadable is after how many objects that the store can not read it is
	// taken to be the store.
	maxUnreadable = 100
)

type verifier struct {
	env    Env
	opts   VerifyOptions
	match  func(manifests.Entry) bool
	turn   int64 // of the sample
	months []utc.Month

	unreadable atomic.Int32
	many       sync.Mutex // held while a file of very many samples is decoded

	mu     sync.Mutex // guards what follows
	report VerifyReport
	prog   Progress
	broken []broken
	looked bool // at a chosen point that has a chosen day archived
}

// broken are (point, day)s that are not whole, whatever the ledger says of them.
type broken struct {
	point int32 // 0 with all
	all   bool  // every point
	name  string
	month utc.Month
	days  utc.Set
	why   string
}

// Verify proves that the cold tier holds what its manifests say, and, on
// request, what the source has. But for the marks that Revoke takes back, and the
// line of a verification of all months and points in Env.Journal, it writes nothing. It
// lists every finding; the error is nil unless it could not be carried out.
//
// What does not fit together is read again, manifest and object, before it is a
// finding, so that a job that is running raises no alarm.
func Verify(ctx context.Context, env Env, o VerifyOptions) (VerifyReport, error) {
	start := env.Now()
	o.defaults()
	v := &verifier{env: env, opts: o, turn: cmp.Or(o.Turn, int64(utc.DayOfTime(start))), report: VerifyReport{Deep: o.Deep, Against: o.Against, Sample: o.Sample, Findings: []Finding{}}}
	if err := o.validate(env); err != nil {
		return v.report, err
	}
	err := v.all(ctx)
	v.log(ctx, start, err)
	slices.SortStableFunc(v.report.Findings, func(a, b Finding) int {
		last := func(f Finding) int { // a mark's finding follows what it follows from
			if f.Code == "mark" {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(a.Month, b.Month), cmp.Compare(a.PointID, b.PointID), cmp.Compare(last(a), last(b)), cmp.Compare(a.Path, b.Path))
	})
	v.report.Billed = env.Billed()
	v.report.Elapsed = env.Now().Sub(start).Seconds()
	return v.report, err
}

// verifying is the command of a verification in the log of runs.
const verifying = "verify"

// log leaves a line in the log of runs, for status to tell when all was last found
// whole: done, or partial with findings, or failed where archived samples can not be
// read, or interrupted where an error ended it, which says nothing of the archive. The
// verification of a part says nothing of the rest, so it is not logged; nor
// is one that somebody broke off. That it can not be logged is a warning.
//
// Its days are those that a later run has to cover to have the last word: where damage was
// found by reading, the months of it; where there is none and every byte was read, all
// months; else none, for what a listing shows the next one shows too.
func (v *verifier) log(ctx context.Context, start time.Time, err error) {
	if v.env.Journal == nil || v.opts.Days != (utc.Days{}) || !v.opts.Points.All() || ctx.Err() != nil {
		return
	}
	run := source.Run{ID: newRunID(start), Command: verifying, Status: "done", Started: start, Finished: v.env.Now(),
		Records: v.report.Samples, Files: v.report.FilesRead, Bytes: v.report.Read}
	notices, damaged := 0, 0
	var read []utc.Month // in which reading found damage
	for _, f := range v.report.Findings {
		switch f.Severity {
		case Notice:
			notices++
		case Damaged:
			damaged++
			if m, err := utc.ParseMonth(f.Month); err == nil && (v.opts.Deep || v.opts.Against != "") && f.Code != "missing" && f.Code != "manifest" {
				read = append(read, m)
			}
		}
	}
	if notices+damaged > 0 {
		run.Status, run.Error = "partial", fmt.Sprintf("%d damaged, %d other findings", damaged, notices)
	}
	switch {
	case damaged > 0:
		run.Status = "failed"
		if len(read) > 0 {
			run.Days = utc.Days{From: slices.Min(read).First(), To: slices.Max(read).Days().To}
		}
		if err != nil {
			run.Error += ", and it did not finish: " + err.Error()
		}
	case fault.Is(err, fault.Corrupt):
		run.Status, run.Error = "failed", err.Error()
	case err != nil:
		run.Status, run.Error = "interrupted", err.Error()
		if notices > 0 {
			run.Error += fmt.Sprintf(" (%d findings until then)", notices)
		}
	case v.opts.Deep && v.opts.Sample == 0 && len(v.months) > 0:
		run.Days = utc.Days{From: v.months[0].First(), To: v.months[len(v.months)-1].Days().To}
	}
	lctx, cancel := context.WithTimeout(ctx, logTime)
	defer cancel()
	if err := v.env.Journal.Log(lctx, run); err != nil {
		v.env.notify(Warning{fmt.Sprintf("the verification was not logged in archive_state: %v", err)})
	}
}

func (v *verifier) all(ctx context.Context) error {
	match := v.opts.Points.Matcher()
	v.match = func(e manifests.Entry) bool { return match(e.Name) }
	var hot *hotTier
	if v.opts.Points.Group != "" || v.opts.Against != "" || v.opts.Revoke {
		var err error
		if hot, err = v.hot(ctx); err != nil {
			return err
		}
	}
	if v.opts.Points.Group != "" {
		v.match = func(e manifests.Entry) bool { _, ok := slices.BinarySearch(hot.points, e.ID); return ok }
	}
	months, err := monthsOf(ctx, v.env.Store)
	if err != nil {
		return err
	}
	if v.opts.Days != (utc.Days{}) {
		months = slices.DeleteFunc(months, func(m utc.Month) bool { return m.Days().Intersect(v.opts.Days).Empty() })
	}
	v.months, v.prog.NMonths = months, len(months)
	for _, m := range months {
		if err := v.month(ctx, m); err != nil {
			return err
		}
		v.report.Months++
		v.prog.MonthsDone++
	}
	if v.opts.Against != "" || v.opts.Revoke {
		for _, m := range hot.days.Months() {
			if err := v.source(ctx, m, hot); err != nil {
				return err
			}
		}
		if err := v.marks(ctx, hot); err != nil {
			return err
		}
	}
	if err := v.others(ctx); err != nil {
		return err
	}
	return v.nothing(ctx)
}

// nothing finds that there was nothing to look at among the days and points that were
// chosen, most likely by a mistake: that no error was found would say nothing. What was
// damaged may have been it.
func (v *verifier) nothing(ctx context.Context) error {
	if v.looked || len(v.report.Findings) > 0 || v.opts.Days == (utc.Days{}) && v.opts.Points.All() {
		return nil
	}
	if err := v.opts.Points.Known(ctx, v.env); err != nil {
		return err
	}
	what := "nothing is archived"
	if !v.opts.Points.All() {
		what += " of the points that were chosen"
	}
	if v.opts.Days != (utc.Days{}) {
		what += fmt.Sprintf(" in %s", v.opts.Days)
	}
	v.find(Finding{Severity: Notice, Code: "empty", Text: what + ": nothing was verified",
		Remedy: "are the days and the points those that were meant? `etl points` lists what is archived of each point"})
	return nil
}

// inSample chooses, by the hash of its name, whether an object is looked at on a
// day: there are 100 shares, of which the n on from n times the number of the day
// are looked at. So successive days look at successive shares, and any
// ceil(100/n) of them at every object.
func inSample(name string, turn int64, percent int) bool {
	if percent == 0 {
		return true
	}
	h := fnv.New32a()
	h.Write([]byte(name))
	share := int(h.Sum32() % 100)
	first := int(turn * int64(percent) % 100)
	return (share-first+100)%100 < percent
}

// sampled reports whether an entry is looked at in depth today.
func (v *verifier) sampled(e *manifests.Entry) bool {
	return inSample(cmp.Or(string(e.Path), strconv.Itoa(int(e.ID))), v.turn, v.opts.Sample)
}

// monthsOf lists the months of which the store holds a manifest or a file.
func monthsOf(ctx context.Context, store object.Store) ([]utc.Month, error) {
	months, err := manifests.Months(ctx, store)
	if err != nil {
		return nil, err
	}
	for a, err := range store.List(ctx, "timeseries/") {
		if err != nil {
			return nil, err
		}
		if parts := strings.Split(string(a.Key), "/"); len(parts) == 4 {
			if m, err := utc.ParseMonth(parts[1] + "-" + parts[2]); err == nil && !slices.Contains(months, m) {
				months = append(months, m)
			}
		}
	}
	slices.Sort(months)
	return months, nil
}

func (v *verifier) month(ctx context.Context, m utc.Month) error {
	// LIST first, manifest second: a file that a running archive writes in
	// between is then newer than the listing, and is looked at again.
	listed := make(map[object.Key]object.Attrs)
	for a, err := range v.env.Store.List(ctx, manifests.DirOf(m)) {
		if err != nil {
			return err
		}
		listed[a.Key] = a
	}
	man, version, err := manifests.Load(ctx, v.env.Store, m)
	lost := fault.Is(err, fault.Corrupt) || fault.Is(err, fault.Invalid)
	switch {
	case lost:
		v.find(Finding{Severity: Damaged, Code: "manifest", Month: m.String(), Path: string(manifests.KeyOf(m)), Text: err.Error(), Remedy: toMend(m)})
		v.notWhole(broken{all: true, month: m, days: utc.SetOf(m, m.Days()), why: "the manifest can not be read"})
		man = &manifests.Manifest{Month: m}
	case err != nil:
		return err
	}
	named := make(map[object.Key]bool, len(man.Points))
	var suspects []manifests.Entry
	moved := 0
	for _, e := range man.Points {
		named[e.Path] = true
		if !v.match(e) {
			continue
		}
		v.report.Points++
		v.looked = v.looked || v.opts.Days == (utc.Days{}) || e.Days.Archived()&utc.SetOf(m, v.opts.Days) != 0
		if e.Path == "" {
			continue
		}
		v.report.Files++
		v.report.Bytes += e.Bytes
		v.report.Samples += e.Samples
		a, ok := listed[e.Path]
		other := ok && a.ETag != "" && a.ETag != e.ETag
		if other {
			moved++
		}
		if !ok || other || a.Size != e.Bytes || v.opts.Deep && v.sampled(&e) {
			suspects = append(suspects, e)
		}
	}
	var orphans []object.Attrs
	if v.opts.Points.All() {
		for key, a := range listed {
			if !named[key] {
				orphans = append(orphans, a)
			}
		}
	}
	v.begin(m, len(suspects))
	bad := 0 // of the moved
	var mu sync.Mutex
	err = v.each(ctx, suspects, func(ctx context.Context, e manifests.Entry, dec *monthfile.Decoder, rows *sample.Series) error {
		ok, err := v.file(ctx, m, e, dec, rows)
		if !ok {
			mu.Lock()
			bad++
			mu.Unlock()
		}
		v.progress()
		return err
	})
	if err != nil {
		return err
	}
	if moved > 0 && bad == 0 {
		v.find(Finding{Severity: Info, Code: "version", Month: m.String(),
			Text: fmt.Sprintf("%d files have another version (ETag) than the manifest names, with the right bytes: the store was copied, or files were put back; until they are archived again, each verification reads them", moved)})
	}
	if lost {
		return v.unnamed(ctx, m, orphans)
	}
	return v.orphans(ctx, m, version, orphans)
}

// each calls f for each entry from the workers, each of which has a decoder.
func (v *verifier) each(ctx context.Context, entries []manifests.Entry, f func(context.Context, manifests.Entry, *monthfile.Decoder, *sample.Series) error) error {
	g, gctx := errgroup.WithContext(ctx)
	next := make(chan manifests.Entry)
	g.Go(func() error {
		defer close(next)
		for _, e := range entries {
			select {
			case next <- e:
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		return nil
	})
	for range min(v.opts.Workers, len(entries)) {
		g.Go(func() error {
			dec, rows := monthfile.NewDecoder().Timed(v.env.Timing), new(sample.Series)
			for e := range next {
				if err := f(gctx, e, dec, rows); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// file looks at the object of an entry; where they disagree, both are read
// again before anything is found. It reports whether the object is the one that
// the manifest names.
func (v *verifier) file(ctx context.Context, m utc.Month, e manifests.Entry, dec *monthfile.Decoder, rows *sample.Series) (bool, error) {
	f := Finding{Severity: Damaged, Month: m.String(), PointID: e.ID, Point: e.Name, Path: string(e.Path), Remedy: toMend(m)}
	damaged := func(code, format string, a ...any) (bool, error) {
		f.Code, f.Text = code, fmt.Sprintf(format, a...)
		v.find(f)
		v.notWhole(broken{point: e.ID, name: e.Name, month: m, days: e.Days.Archived(), why: "the month file is not whole"})
		return false, nil
	}
	var data []byte
	var attrs object.Attrs
	var err error
	for attempt := range 2 {
		if attempt > 0 {
			man, _, err := manifests.Load(ctx, v.env.Store, m)
			if fault.Is(err, fault.Corrupt) || fault.Is(err, fault.Invalid) {
				return damaged("manifest", "the manifest was damaged while it was verified: %v", err)
			}
			if err != nil {
				return false, err
			}
			now := man.Entry(e.ID)
			if now == nil || now.Path == "" {
				return damaged("manifest", "the entry vanished from the manifest while it was verified")
			}
			e = *now
		}
		data, attrs, err = v.env.Store.Get(ctx, e.Path)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil {
			continue
		}
		v.read(int64(len(data)))
		sum := sha256.Sum256(data)
		if hex.EncodeToString(sum[:]) != e.SHA256 {
			continue
		}
		// The bytes are those that the manifest names. What is left to prove
		// is that they say what it says.
		if !v.opts.Deep {
			return true, nil
		}
		info, err := v.decode(dec, data, rows)
		if err == nil {
			err = agrees(m, e, info)
		}
		if err != nil {
			return damaged("corrupt", "%v", err)
		}
		return true, nil
	}
	switch k := fault.KindOf(err); {
	case err == nil:
	case k == fault.NotExist:
		return damaged("missing", "the manifest names this file of %d samples, but it is not there", e.Samples)
	default:
		return false, v.unread(f, err)
	}
	info, err := v.decode(dec, data, rows)
	switch {
	case err != nil:
	case info.PointID != e.ID || info.Month != m:
		err = fault.Errorf(fault.Corrupt, "it holds point %d, %s", info.PointID, info.Month)
	case info.RowsSHA256 == e.RowsSHA256:
		// No job stores the same rows in other bytes.
		err = fault.Errorf(fault.Corrupt, "its samples are those of the manifest, so it is no newer version; what is damaged holds no sample, but other readers may take it for one")
	}
	if err != nil {
		return damaged("corrupt", "the bytes are not those that were archived: %v", err)
	}
	v.pending(f, attrs, "a whole, newer version than the manifest names")
	return false, nil
}

// unread reports that the store can not read an object. It returns the error where
// that says nothing of the object, and may be the same for all.
func (v *verifier) unread(f Finding, err error) error {
	if k := fault.KindOf(err); k == fault.Transient || k == fault.Unknown || errors.Is(err, context.Canceled) || v.unreadable.Add(1) > maxUnreadable {
		return err
	}
	f.Code, f.Text, f.Remedy = "unreadable", fmt.Sprintf("the store can not read it: %v", err), cmp.Or(fault.HintOf(err), f.Remedy)
	v.find(f)
	return nil
}

// agrees compares a decoded file with its entry.
func agrees(m utc.Month, e manifests.Entry, info monthfile.Info) error {
	f := facts(info)
	switch {
	case f.Point != e.ID || f.Month != m:
		return fault.Errorf(fault.Corrupt, "it holds point %d, %s", f.Point, f.Month)
	case f.Samples != e.Samples || f.RowsSHA256 != e.RowsSHA256:
		return fault.Errorf(fault.Corrupt, "it holds %d samples (rows %.12s…), the manifest says %d (%.12s…)", f.Samples, f.RowsSHA256, e.Samples, e.RowsSHA256)
	}
	for i, n := range e.Days {
		// A day that was archived empty after the file was written is 0 in the manifest alone.
		if got := max(0, f.Days[i]); n == sample.NotArchived && got != 0 || n != sample.NotArchived && got != n {
			return fault.Errorf(fault.Corrupt, "%s holds %d samples, the manifest says %d", m.First()+utc.Day(i), got, n)
		}
	}
	if f.Samples > 0 && (e.First == nil || e.Last == nil || f.First != *e.First || f.Last != *e.Last) {
		return fault.Errorf(fault.Corrupt, "its first and last samples are not those of the manifest")
	}
	return nil
}

// pending reports a whole file that the manifest does not name (yet).
func (v *verifier) pending(f Finding, a object.Attrs, what string) {
	age := v.age(a)
	f.Severity, f.Code, f.Remedy = Info, "pending", ""
	f.Text = fmt.Sprintf("%s, written %s ago; a job is at work, or was cut off", what, age.Round(time.Second))
	if age > pendingFor {
		f.Severity, f.Remedy = Notice, fmt.Sprintf("`etl repair --month %s` adopts it", f.Month)
	}
	v.find(f)
}

func (v *verifier) age(a object.Attrs) time.Duration { return max(0, v.env.Now().Sub(a.Modified)) }

// orphans looks at the objects among the month files that the manifest does not name.
func (v *verifier) orphans(ctx context.Context, m utc.Month, version manifests.Version, objects []object.Attrs) error {
	if len(objects) == 0 {
		return nil
	}
	man, now, err := manifests.Load(ctx, v.env.Store, m)
	if err != nil {
		return err
	}
	if version == "" && now == "" {
		// One finding, not one for each of thousands of files.
		newest := objects[0]
		for _, a := range objects {
			if a.Modified.After(newest.Modified) {
				newest = a
			}
		}
		f := Finding{Severity: Info, Code: "manifest", Month: m.String(), Path: string(manifests.KeyOf(m)),
			Text: fmt.Sprintf("there are %d files of the month and no manifest, the newest written %s ago; the first archive of the month is at work, or was cut off, or the manifest was lost", len(objects), v.age(newest).Round(time.Second))}
		if v.age(newest) > pendingFor {
			f.Severity, f.Remedy = Notice, toMend(m)
		}
		v.find(f)
		return v.unnamed(ctx, m, objects)
	}
	named := make(map[object.Key]bool, len(man.Points))
	for _, e := range man.Points {
		named[e.Path] = true
	}
	for _, a := range objects {
		if named[a.Key] {
			continue // committed since
		}
		if err := v.orphan(ctx, m, man, a.Key); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) orphan(ctx context.Context, m utc.Month, man *manifests.Manifest, key object.Key) error {
	data, attrs, err := v.env.Store.Get(ctx, key)
	if fault.Is(err, fault.NotExist) {
		return nil
	}
	f := Finding{Severity: Notice, Month: m.String(), Path: string(key)}
	if err != nil {
		f.Remedy = "no manifest names it; reads never use it"
		return v.unread(f, err)
	}
	v.read(int64(len(data)))
	info, err := v.inspect(data)
	switch {
	case err != nil:
		f.Code, f.Text = "foreign", fmt.Sprintf("no manifest names it, and it can not be read as a month file: %v", err)
		f.Remedy = "nothing depends on it; move it away if it is not yours"
		if fault.Is(err, fault.Corrupt) {
			f.Code = "orphan"
		}
	case info.Month != m || (man.Entry(info.PointID) != nil && man.Entry(info.PointID).Path != ""):
		f.Code, f.PointID, f.Point = "orphan", info.PointID, info.PointName
		f.Text = fmt.Sprintf("no manifest names it: %d samples of point %d, %s, whose file is another one", info.Samples, info.PointID, info.Month)
		f.Remedy = "reads never use it; move it away after comparing"
	default:
		f.PointID, f.Point = info.PointID, info.PointName
		v.pending(f, attrs, "a whole month file that no manifest names")
		return nil
	}
	v.find(f)
	return nil
}

// inspect reads the footer of a month file, with Deep all of it.
func (v *verifier) inspect(data []byte) (monthfile.Info, error) {
	if !v.opts.Deep {
		return monthfile.Inspect(data)
	}
	return v.decode(monthfile.NewDecoder().Timed(v.env.Timing), data, new(sample.Series))
}

// manySamples is from where on one file is decoded at a time, and its memory given
// back: a hostile one of a few kilobytes may hold 67 M samples, which take 1.3 GB.
const manySamples = 4 << 20

func (v *verifier) decode(dec *monthfile.Decoder, data []byte, rows *sample.Series) (monthfile.Info, error) {
	info, err := monthfile.Inspect(data)
	if err != nil {
		return info, err
	}
	if info.Samples > manySamples {
		v.many.Lock()
		defer v.many.Unlock()
		defer func() { *rows = sample.Series{} }()
	}
	return dec.Decode(data, rows)
}

// unnamed reads, with Deep, the files of a month that has no manifest to be
// compared with: a manifest is made of those that are whole.
func (v *verifier) unnamed(ctx context.Context, m utc.Month, objects []object.Attrs) error {
	if !v.opts.Deep {
		return nil
	}
	for _, a := range objects {
		data, _, err := v.env.Store.Get(ctx, a.Key)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if fault.Is(err, fault.NotExist) {
			continue
		}
		f := Finding{Severity: Damaged, Code: "corrupt", Month: m.String(), Path: string(a.Key), Remedy: toMend(m)}
		if err != nil {
			if err := v.unread(f, err); err != nil {
				return err
			}
			continue
		}
		v.read(int64(len(data)))
		if _, err = v.inspect(data); err != nil && !errors.Is(err, monthfile.ErrForeign) {
			f.Text = err.Error()
			v.find(f)
		}
	}
	return nil
}

// toMend is what mends a month whose manifest and files are not whole.
func toMend(m utc.Month) string {
	return fmt.Sprintf("`etl repair --month %s --dry-run` shows what can be mended and from where; --replica URL lets it fetch from a copy", m)
}

// others verifies what lies beside the months: points.json and the rejects.
func (v *verifier) others(ctx context.Context) error {
	_, version, err := manifests.LoadPoints(ctx, v.env.Store)
	if err == nil && version == "" && v.prog.NMonths == 0 && v.opts.Days == (utc.Days{}) {
		v.find(Finding{Severity: Notice, Code: "empty", Text: "there is no manifest, no month file and no catalog of points: nothing was ever archived here",
			Remedy: "is the path of the store right, and the disk mounted?"})
	}
	if fault.Is(err, fault.Corrupt) || fault.Is(err, fault.Invalid) {
		v.find(Finding{Severity: Notice, Code: "points", Path: string(manifests.PointsKey), Text: err.Error(), Remedy: fault.HintOf(err)})
	} else if err != nil {
		return err
	}
	if !v.opts.Points.All() {
		return nil
	}
	for file, err := range manifests.Rejects(ctx, v.env.Store) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		v.report.Rejects++
		f := Finding{Severity: Notice, Code: "reject", Path: string(file.Key), Remedy: "`etl repair` sets it aside; rows that are still in the source are recorded again by the next archive"}
		switch {
		case err == nil || fault.Is(err, fault.NotExist):
		case fault.Is(err, fault.Corrupt):
			f.Text = err.Error()
			v.find(f)
		default:
			if err := v.unread(f, err); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *verifier) find(f Finding) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Findings = append(v.report.Findings, f)
}

func (v *verifier) notWhole(u broken) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.broken = append(v.broken, u)
}

func (v *verifier) read(n int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.FilesRead++
	v.report.Read += n
}

// begin adds n points of a month to what there is to do.
func (v *verifier) begin(m utc.Month, n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.prog.Month = m
	v.prog.PointsTotal += int64(n)
}

func (v *verifier) progress() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.prog.PointsDone++
	v.prog.Bytes, v.prog.Rows = v.report.Read, v.report.HotRows
	v.env.notify(v.prog)
}
