package jobs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/object"
	"etl/internal/sample"
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
	Deep    bool
	Workers int // default 4
}

// Severity of a finding.
type Severity string

const (
	Info    Severity = "info"    // normal while a job runs
	Notice  Severity = "finding" // something to look at; no archived sample is lost
	Damaged Severity = "corrupt" // archived samples can not be read
)

// Finding is one thing that verify found.
type Finding struct {
	Severity Severity `json:"severity"`
	Code     string   `json:"code"` // manifest, missing, corrupt, pending, orphan, foreign, reject, points, empty
	Month    string   `json:"month,omitempty"`
	PointID  int32    `json:"point_id,omitempty"`
	Point    string   `json:"point,omitempty"`
	Path     string   `json:"path,omitempty"`
	Text     string   `json:"text"`
	Remedy   string   `json:"remedy,omitempty"`
}

// VerifyReport is the result of a verification.
type VerifyReport struct {
	Deep     bool      `json:"deep"`
	Months   int       `json:"months"`
	Points   int64     `json:"point_months"`
	Files    int64     `json:"files"`
	Bytes    int64     `json:"bytes"` // of the month files, as the manifests say
	Samples  int64     `json:"samples"`
	Read     int64     `json:"bytes_read"`
	Rejects  int64     `json:"reject_files"`
	Findings []Finding `json:"findings"`
	Elapsed  float64   `json:"elapsed_seconds"`
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

// pendingFor is how long a file may be newer than the manifest before that is a finding.
const pendingFor = time.Hour

type verifier struct {
	env    Env
	opts   VerifyOptions
	match  func(manifests.Entry) bool
	mu     sync.Mutex
	report VerifyReport
	prog   Progress
}

// Verify proves that the cold tier holds what its manifests say. It writes
// nothing and lists every finding; the error is nil unless it could not be
// carried out.
func Verify(ctx context.Context, env Env, o VerifyOptions) (VerifyReport, error) {
	start := env.Now()
	if o.Workers == 0 {
		o.Workers = 4
	}
	v := &verifier{env: env, opts: o, report: VerifyReport{Deep: o.Deep, Findings: []Finding{}}}
	defer func() { v.report.Elapsed = env.Now().Sub(start).Seconds() }()
	match := o.Points.Matcher()
	v.match = func(e manifests.Entry) bool { return match(e.Name) }
	if o.Points.Group != "" {
		if env.Source == nil {
			return v.report, fault.Errorf(fault.Usage, "--group %s: groups are in the source; give --source too", o.Points.Group)
		}
		all, _, err := env.Source.Points(ctx)
		if err != nil {
			return v.report, err
		}
		chosen, err := o.Points.filter(ctx, env.Source, all)
		if err != nil {
			return v.report, err
		}
		ids := make(map[int32]bool)
		for _, p := range chosen {
			ids[p.ID] = true
		}
		v.match = func(e manifests.Entry) bool { return ids[e.ID] }
	}
	months, err := monthsOf(ctx, env.Store)
	if err != nil {
		return v.report, err
	}
	if o.Days != (utc.Days{}) {
		months = slices.DeleteFunc(months, func(m utc.Month) bool { return m.Days().Intersect(o.Days).Empty() })
	}
	v.prog.NMonths = len(months)
	for _, m := range months {
		if err := v.month(ctx, m); err != nil {
			return v.report, err
		}
		v.report.Months++
		v.prog.MonthsDone++
	}
	if err := v.others(ctx); err != nil {
		return v.report, err
	}
	slices.SortStableFunc(v.report.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Month, b.Month), cmp.Compare(a.PointID, b.PointID), cmp.Compare(a.Path, b.Path))
	})
	v.report.Elapsed = env.Now().Sub(start).Seconds()
	return v.report, nil
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
	man, _, err := manifests.Load(ctx, v.env.Store, m)
	if fault.Is(err, fault.Corrupt) || fault.Is(err, fault.Invalid) {
		v.find(Finding{Severity: Damaged, Code: "manifest", Month: m.String(), Path: string(manifests.KeyOf(m)), Text: err.Error(), Remedy: fault.HintOf(err)})
		return nil
	}
	if err != nil {
		return err
	}
	named := make(map[object.Key]bool, len(man.Points))
	var suspects []manifests.Entry
	for _, e := range man.Points {
		named[e.Path] = true
		if !v.match(e) {
			continue
		}
		v.report.Points++
		if e.Path == "" {
			continue
		}
		v.report.Files++
		v.report.Bytes += e.Bytes
		v.report.Samples += e.Samples
		if a, ok := listed[e.Path]; v.opts.Deep || !ok || a.Size != e.Bytes || (a.ETag != "" && a.ETag != e.ETag) {
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
	v.prog.Month, v.prog.PointsTotal = m, v.prog.PointsTotal+int64(len(suspects))

	g, gctx := errgroup.WithContext(ctx)
	for part := range slices.Chunk(suspects, max(1, (len(suspects)+v.opts.Workers-1)/v.opts.Workers)) {
		g.Go(func() error {
			dec, rows := monthfile.NewDecoder(), new(sample.Series)
			for _, e := range part {
				if err := v.file(gctx, m, e, dec, rows); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, a := range orphans {
		if err := v.orphan(ctx, m, a); err != nil {
			return err
		}
	}
	return nil
}

// file looks at the object of an entry; where they disagree, both are read
// again before anything is found.
func (v *verifier) file(ctx context.Context, m utc.Month, e manifests.Entry, dec *monthfile.Decoder, rows *sample.Series) error {
	defer v.progress()
	f := Finding{Month: m.String(), PointID: e.ID, Point: e.Name, Path: string(e.Path)}
	var err error
	var attrs object.Attrs
	for attempt := range 2 {
		if attempt > 0 {
			man, _, lerr := manifests.Load(ctx, v.env.Store, m)
			if lerr != nil {
				return lerr
			}
			now := man.Entry(e.ID)
			if now == nil {
				f.Severity, f.Code, f.Text = Damaged, "manifest", "the entry vanished from the manifest while it was verified"
				v.find(f)
				return nil
			}
			e = *now
		}
		var data []byte
		data, attrs, err = v.env.Store.Get(ctx, e.Path)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if !fault.Is(err, fault.NotExist) && attempt > 0 {
				return err
			}
			continue
		}
		v.read(int64(len(data)))
		sum := sha256.Sum256(data)
		if hex.EncodeToString(sum[:]) == e.SHA256 {
			// The bytes are those that the manifest names. What is left to prove
			// is that they say what it says.
			if !v.opts.Deep {
				return nil
			}
			info, derr := dec.Decode(data, rows)
			if derr == nil {
				derr = agrees(m, e, info)
			}
			if derr != nil {
				f.Severity, f.Code, f.Text, f.Remedy = Damaged, "corrupt", derr.Error(), remedy(m)
				v.find(f)
			}
			return nil
		}
		if attempt == 0 {
			continue
		}
		info, derr := dec.Decode(data, rows)
		if derr == nil && (info.PointID != e.ID || info.Month != m) {
			derr = fault.Errorf(fault.Corrupt, "it holds point %d, %s", info.PointID, info.Month)
		}
		if derr != nil {
			f.Severity, f.Code, f.Text, f.Remedy = Damaged, "corrupt", fmt.Sprintf("the bytes are not those that were archived: %v", derr), remedy(m)
			v.find(f)
			return nil
		}
		v.pending(f, attrs, "a whole, newer version than the manifest names")
		return nil
	}
	if fault.Is(err, fault.NotExist) {
		f.Severity, f.Code, f.Text, f.Remedy = Damaged, "missing", fmt.Sprintf("the manifest names this file of %d samples, but it is not there", e.Samples), remedyMissing(m)
		v.find(f)
		return nil
	}
	return err
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
	age := max(0, v.env.Now().Sub(a.Modified))
	f.Severity, f.Code = Info, "pending"
	f.Text = fmt.Sprintf("%s, written %s ago; a job is at work, or was cut off", what, age.Round(time.Second))
	if age > pendingFor {
		f.Severity = Notice
		f.Remedy = fmt.Sprintf("run the archive again for that month: `etl rearchive --month %s`", f.Month)
	}
	v.find(f)
}

// orphan looks at an object among the month files that the manifest does not name.
func (v *verifier) orphan(ctx context.Context, m utc.Month, a object.Attrs) error {
	man, _, err := manifests.Load(ctx, v.env.Store, m)
	if err != nil {
		return err
	}
	for _, e := range man.Points {
		if e.Path == a.Key {
			return nil // committed since
		}
	}
	data, attrs, err := v.env.Store.Get(ctx, a.Key)
	if fault.Is(err, fault.NotExist) {
		return nil
	}
	f := Finding{Month: m.String(), Path: string(a.Key)}
	if err != nil {
		f.Severity, f.Code, f.Text = Notice, "foreign", err.Error()
		v.find(f)
		return ctx.Err()
	}
	v.read(int64(len(data)))
	info, err := monthfile.Inspect(data)
	switch {
	case err != nil:
		f.Severity, f.Code, f.Text = Notice, "foreign", fmt.Sprintf("no manifest names it, and it can not be read as a month file: %v", err)
		f.Remedy = "nothing depends on it; move it away if it is not yours"
		if fault.Is(err, fault.Corrupt) {
			f.Code = "orphan"
		}
	case info.Month != m || (man.Entry(info.PointID) != nil && man.Entry(info.PointID).Path != ""):
		f.Severity, f.Code, f.PointID, f.Point = Notice, "orphan", info.PointID, info.PointName
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
	for f, err := range manifests.Rejects(ctx, v.env.Store) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		v.report.Rejects++
		if err != nil {
			v.find(Finding{Severity: Notice, Code: "reject", Path: string(f.Key), Text: err.Error(), Remedy: "move it aside; rows that are still in the source are recorded again by `etl rearchive`"})
		}
	}
	return nil
}

func (v *verifier) find(f Finding) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Findings = append(v.report.Findings, f)
}

func (v *verifier) read(n int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Read += n
}

func (v *verifier) progress() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.prog.PointsDone++
	v.prog.Bytes = v.report.Read
	v.env.notify(v.prog)
}
