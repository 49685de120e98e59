package jobs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
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

// repairing is the mode of the engine when it mends month files.
const repairing Mode = "repair"

// RepairOptions say what to repair; the zero value is all of it.
type RepairOptions struct {
	Days   utc.Days // the months that it touches; the zero value is all
	Points Points   // Group needs Env.Source
	// Replica is another cold tier of the same source to take from what is lost
	// here; nil for none. It is only read.
	Replica object.Store
	Workers int            // files read at a time while planning, default 4
	Engine  ArchiveOptions // workers, memory, codec, adopt, grace and hot window alone count
}

// Fix is one thing that a repair does, or leaves alone.
type Fix struct {
	Action  string `json:"action"` // points, manifest, adopt, refresh, mend, reject, left
	Month   string `json:"month,omitempty"`
	PointID int32  `json:"point_id,omitempty"`
	Point   string `json:"point,omitempty"`
	Path    string `json:"path,omitempty"`
	// Days is how many (point, day)s have to be found outside of the cold tier;
	// Replica how many of them a replica holds.
	Days    int    `json:"point_days,omitempty"`
	Replica int    `json:"point_days_in_replica,omitempty"`
	Text    string `json:"text"`
}

// RepairPlan is what a repair will do. It is run at most once.
type RepairPlan struct {
	Months int   `json:"months"` // that were looked at
	Files  int64 `json:"files"`
	Read   int64 `json:"bytes_read"`
	Fixes  []Fix `json:"fixes"`
	// Marks is how many marks stand over (point, day)s that are not whole: they
	// are revoked before anything else.
	Marks int `json:"marks_to_revoke"`
	// Left are objects that no manifest names and that are nobody's to overwrite.
	Left []Fix `json:"left"`
	// Blocked is what a person has to look at first.
	Blocked  []Failure `json:"blocked"`
	Warnings []string  `json:"warnings"`

	o      RepairOptions
	months []*monthRepair
	points bool // points.json is to be written anew
	reject []object.Key
	// for points.json and for the engine
	info source.Info
	all  []sample.Point
	now  utc.Day // the first day that is not complete
	from *replica
}

// monthRepair is what there is to do in one month.
type monthRepair struct {
	month   utc.Month
	rebuild bool // the manifest can not be read
	absent  bool // there are files and no manifest
	man     *manifests.Manifest
	revoke  []source.Slice
	changes []manifests.Change
	points  map[int32]*pointRepair
}

// pointRepair is what is known of a point of the month.
type pointRepair struct {
	point sample.Point
	// whole are the days that the cold tier counts and can deliver, counts the
	// samples of each day that it, or a replica, was known to hold.
	whole  utc.Set
	counts sample.DayCounts
	// gone are days that the ledger says were archived, without saying how many
	// samples they had.
	gone    utc.Set
	mend    *mending
	read    utc.Set // days to be read from the source
	unsure  utc.Set // those among read of which finding nothing proves nothing
	name    string
	unknown string // a file that can not be read and that may have been the point's
	blocked bool   // a person has to look first
}

func (m *monthRepair) point(id int32, name string) *pointRepair {
	p := m.points[id]
	if p == nil {
		p = &pointRepair{point: sample.Point{ID: id, Name: name}, counts: sample.NewDayCounts(m.month), name: name}
		m.points[id] = p
	}
	return p
}

// Empty reports whether there is nothing to do.
func (p *RepairPlan) Empty() bool { return len(p.Fixes) == 0 && p.Marks == 0 }

// ExitCode is 0, or that of what blocks the repair of a part.
func (p *RepairPlan) ExitCode() int {
	code := fault.ExitOK
	for _, f := range p.Blocked {
		code = fault.Worse(code, fault.ExitCode(f.err))
	}
	return code
}

// PlanRepair reads every byte of the chosen part of the cold tier and works out
// how to mend what is not whole. It changes nothing.
func PlanRepair(ctx context.Context, env Env, o RepairOptions) (*RepairPlan, error) {
	o.Workers = cmp.Or(o.Workers, 4)
	o.Engine.Mode = repairing
	o.Engine.defaults()
	if err := o.Engine.validate(); err != nil {
		return nil, err
	}
	p := &RepairPlan{o: o, Fixes: []Fix{}, Left: []Fix{}, Blocked: []Failure{}, Warnings: []string{}, all: []sample.Point{}}
	now := env.Now()
	if env.Source != nil {
		var err error
		if p.info, err = env.Source.Info(ctx); err != nil {
			return nil, err
		}
		if p.all, _, err = env.Source.Points(ctx); err != nil {
			return nil, err
		}
		now = clock(p.info.Now, now)
	} else if o.Points.Group != "" {
		return nil, fault.Errorf(fault.Usage, "--group %s: groups are in the source; give --source too", o.Points.Group)
	}
	p.now = firstIncomplete(now, o.Engine.Grace)
	if o.Replica != nil {
		p.from = &replica{store: o.Replica}
	}
	if err := p.catalog(ctx, env); err != nil {
		return nil, err
	}
	chosen, err := p.chooser(ctx, env)
	if err != nil {
		return nil, err
	}
	var seen atomic.Bool
	every := chosen
	chosen = func(id int32, name string) bool {
		ok := every(id, name)
		if ok {
			seen.Store(true)
		}
		return ok
	}
	months, err := p.span(ctx, env, now)
	if err != nil {
		return nil, err
	}
	prog := Progress{NMonths: len(months)}
	for _, m := range months {
		if env.stopped() {
			return nil, context.Canceled
		}
		prog.Month = m
		r, err := p.month(ctx, env, m, chosen, &prog)
		if err != nil {
			return nil, err
		}
		p.months = append(p.months, r)
		p.Months++
		prog.MonthsDone++
	}
	if !seen.Load() && len(p.Blocked) == 0 { // what can not be read may have been it
		if err := o.Points.Known(ctx, env); err != nil {
			return nil, err
		}
	}
	return p, p.rejects(ctx, env)
}

// catalog looks at points.json, and refuses a source or a replica that the cold
// tier does not belong to.
func (p *RepairPlan) catalog(ctx context.Context, env Env) error {
	c, version, err := manifests.LoadPoints(ctx, env.Store)
	switch {
	case fault.Is(err, fault.Corrupt):
		p.points = true
		p.Fixes = append(p.Fixes, Fix{Action: "points", Path: string(manifests.PointsKey), Text: fmt.Sprintf("set aside and written anew: %v", err)})
	case err != nil:
		return err
	case version == "":
		months, err := monthsOf(ctx, env.Store)
		if err != nil {
			return err
		}
		if p.points = len(months) > 0; p.points {
			p.Fixes = append(p.Fixes, Fix{Action: "points", Path: string(manifests.PointsKey), Text: "missing: written anew"})
		}
	case env.Source != nil:
		if err := c.Accepts(p.info.ID, p.o.Engine.Adopt); err != nil {
			return err
		}
	}
	if p.from == nil {
		return nil
	}
	if p.from.catalog, _, err = manifests.LoadPoints(ctx, p.o.Replica); err != nil {
		if !fault.Is(err, fault.Corrupt) {
			return fmt.Errorf("replica: %w", err)
		}
		p.Warnings = append(p.Warnings, fmt.Sprintf("replica: %v", err))
		p.from.catalog = &manifests.Catalog{}
		return nil
	}
	of, what := p.info.ID, "the source is"
	if c != nil && c.SourceID != "" {
		of, what = c.SourceID, "this cold tier belongs to"
	}
	if id := p.from.catalog.SourceID; id != "" && of != "" && id != of {
		return fault.Hint(fault.Errorf(fault.Invalid, "the replica belongs to source %s, %s %s", id, what, of), "give the URL of a replica of this cold tier")
	}
	return nil
}

// chooser reports which points are chosen, by id and name.
func (p *RepairPlan) chooser(ctx context.Context, env Env) (func(id int32, name string) bool, error) {
	match := p.o.Points.Matcher()
	if p.o.Points.Group == "" {
		return func(_ int32, name string) bool { return match(name) }, nil
	}
	chosen, err := p.o.Points.filter(ctx, env.Source, p.all)
	if err != nil {
		return nil, err
	}
	ids := make(map[int32]bool)
	for _, pt := range chosen {
		ids[pt.ID] = true
	}
	return func(id int32, _ string) bool { return ids[id] }, nil
}

// span lists the months to look at: those of the cold tier, of the replica, and,
// where there is a ledger, those of the hot window, whose marks may stand over
// a month that has vanished.
func (p *RepairPlan) span(ctx context.Context, env Env, now time.Time) ([]utc.Month, error) {
	months, err := monthsOf(ctx, env.Store)
	if err != nil {
		return nil, err
	}
	if p.from != nil {
		more, err := manifests.Months(ctx, p.o.Replica)
		if err != nil {
			return nil, fmt.Errorf("replica: %w", err)
		}
		months = append(months, more...)
	}
	if env.Ledger != nil {
		today := utc.DayOfTime(now)
		months = append(months, utc.Days{From: max(source.Earliest, today-utc.Day(p.o.Engine.HotWindow)), To: today + 1}.Months()...)
	}
	slices.Sort(months)
	months = slices.Compact(months)
	if p.o.Days != (utc.Days{}) {
		months = slices.DeleteFunc(months, func(m utc.Month) bool { return m.Days().Intersect(p.o.Days).Empty() })
	}
	return months, nil
}

// month looks at one month.
func (p *RepairPlan) month(ctx context.Context, env Env, month utc.Month, chosen func(int32, string) bool, prog *Progress) (*monthRepair, error) {
	m := &monthRepair{month: month, points: make(map[int32]*pointRepair)}
	// The ledger first: what it marks now, the manifest counts later.
	marked, trimmed, pruned := make(map[int32]utc.Set), make(map[int32]utc.Set), make(map[int32]utc.Set)
	if env.Ledger != nil {
		var ids []int32
		for _, pt := range p.all {
			if chosen(pt.ID, pt.Name) {
				ids = append(ids, pt.ID)
			}
		}
		err := env.Ledger.Marks(ctx, ids, month.Days(), func(k source.Mark) {
			switch i := int(k.Day - month.First()); k.State {
			case source.Marked:
				marked[k.Point] = marked[k.Point].With(i)
			case source.Trimmed:
				trimmed[k.Point] = trimmed[k.Point].With(i)
			}
		})
		if err != nil {
			return nil, err
		}
		err = env.Ledger.Pruned(ctx, ids, month.Days(), func(s source.Slice) {
			pruned[s.Point] = pruned[s.Point].With(int(s.Day - month.First()))
		})
		if err != nil {
			return nil, err
		}
	}
	// Then the listing, and the manifest last: see Verify.
	listed := make(map[object.Key]object.Attrs)
	for a, err := range env.Store.List(ctx, manifests.DirOf(month)) {
		if err != nil {
			return nil, err
		}
		listed[a.Key] = a
	}
	man, version, err := manifests.Load(ctx, env.Store, month)
	fix := Fix{Action: "manifest", Month: month.String(), Path: string(manifests.KeyOf(month))}
	switch {
	case fault.Is(err, fault.Corrupt):
		m.rebuild = true
		fix.Text = fmt.Sprintf("set aside and rebuilt from the footers of the month's files: %v", err)
	case fault.Is(err, fault.Invalid):
		p.block(err, Failure{Month: month.String(), Path: fix.Path})
		return m, nil
	case err != nil:
		return nil, err
	case version == "" && len(listed) > 0:
		m.absent = true
		fix.Text = "missing: rebuilt from the footers of the month's files"
	}
	if m.rebuild || m.absent {
		if man, _, err = manifests.Adopt(ctx, env.Store, month, describe); err != nil {
			return nil, err
		}
		if m.absent = m.absent && len(man.Points) > 0; m.rebuild || m.absent {
			p.Fixes = append(p.Fixes, fix)
		}
	}
	m.man = man
	if err := p.files(ctx, env, m, chosen, prog); err != nil {
		return nil, err
	}
	if err := p.unnamed(ctx, env, m, listed, chosen); err != nil {
		return nil, err
	}
	if err := p.fromReplica(ctx, m, chosen); err != nil {
		return nil, err
	}
	for _, pt := range p.all {
		days := (marked[pt.ID] | trimmed[pt.ID] | pruned[pt.ID])
		if days == 0 {
			continue
		}
		r := m.point(pt.ID, pt.Name)
		r.point = pt
		r.read |= marked[pt.ID] &^ r.whole
		if gone := (trimmed[pt.ID] | pruned[pt.ID]) &^ r.whole; gone != 0 {
			for i, n := range r.counts {
				if n > 0 {
					gone &^= 1 << i // that one has a number, and is mended anyway
				}
			}
			r.gone = gone
			if r.mend == nil && gone != 0 {
				r.mend = &mending{}
			}
			if r.mend != nil {
				r.mend.lost |= gone
			}
		}
		m.revoke = appendSlices(m.revoke, pt.ID, month, marked[pt.ID]&^r.whole)
	}
	p.Marks += len(m.revoke)
	for _, id := range sortedKeys(m.points) {
		r := m.points[id]
		if r.blocked {
			r.mend = nil
			continue
		}
		if r.mend != nil {
			r.read |= r.mend.lost
			r.unsure = r.mend.lost | pruned[id]
		}
		// What was trimmed and not written since is not in the source.
		r.read &^= trimmed[id]
		if env.Source == nil {
			r.read = 0
		}
		r.unsure &= r.read
		if r.mend == nil && r.read == 0 {
			continue
		}
		if r.mend == nil {
			r.mend = &mending{}
		}
		f := Fix{Action: "mend", Month: month.String(), PointID: id, Point: r.name, Days: (r.mend.lost | r.read).Len(), Text: "marked in the ledger, and not in the cold tier"}
		if e := man.Entry(id); e != nil {
			f.Path = string(e.Path)
		}
		if r.mend.replica != nil {
			f.Replica = (r.mend.lost & r.mend.replica.Days.Archived()).Len()
		}
		switch {
		case r.unknown != "":
			f.Text, f.Path = "a file of its name can not be read, and no manifest tells what it held", r.unknown
		case r.mend.rewrite && r.mend.lost == 0:
			f.Text = "its bytes are not those that were archived, though its rows are: written again"
		case f.Path != "" && r.mend.lost != 0:
			f.Text = "its month file is missing, can not be read, or lacks days"
		case r.mend.replica != nil:
			f.Text = "not archived here, but in the replica"
		}
		p.Fixes = append(p.Fixes, f)
	}
	return m, nil
}

func (p *RepairPlan) block(err error, f Failure) {
	g := failure(err)
	g.Month, g.PointID, g.Point, g.Path = f.Month, f.PointID, f.Point, f.Path
	p.Blocked = append(p.Blocked, g)
}

// files reads the month file of each entry.
func (p *RepairPlan) files(ctx context.Context, env Env, m *monthRepair, chosen func(int32, string) bool, prog *Progress) error {
	var entries []*manifests.Entry
	for i := range m.man.Points {
		if e := &m.man.Points[i]; chosen(e.ID, e.Name) {
			entries = append(entries, e)
			r := m.point(e.ID, e.Name)
			copy(r.counts, e.Days)
			for i, n := range e.Days {
				if n == 0 {
					r.whole = r.whole.With(i) // nothing is needed to deliver it
				}
			}
		}
	}
	prog.PointsTotal += int64(len(entries))
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	for part := range slices.Chunk(entries, max(1, (len(entries)+p.o.Workers-1)/p.o.Workers)) {
		g.Go(func() error {
			dec, rows := monthfile.NewDecoder().Timed(env.Timing), new(sample.Series)
			for _, e := range part {
				if err := p.file(gctx, env, m, e, dec, rows, &mu, prog); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (p *RepairPlan) file(ctx context.Context, env Env, m *monthRepair, e *manifests.Entry, dec *monthfile.Decoder, rows *sample.Series, mu *sync.Mutex, prog *Progress) error {
	var data []byte
	var attrs object.Attrs
	var err error
	var info monthfile.Info
	if e.Path != "" {
		data, attrs, err = env.Store.Get(ctx, e.Path)
		if err != nil && !fault.Is(err, fault.NotExist) {
			return err
		}
		if err == nil {
			info, err = dec.Decode(data, rows)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	prog.PointsDone++
	prog.Bytes += int64(len(data))
	env.notify(*prog)
	if e.Path == "" {
		return nil
	}
	p.Files++
	p.Read += int64(len(data))
	r := m.points[e.ID]
	positive := e.Days.Archived() &^ r.whole
	short := positive
	switch {
	case err == nil && (info.PointID != e.ID || info.Month != m.month):
		p.block(fault.Hint(fault.Errorf(fault.Corrupt, "%s: it holds point %d, %s, and should hold point %d", e.Path, info.PointID, info.Month, e.ID),
			"another file was put there, which is never overwritten: move it away and run `etl repair` again"),
			Failure{Month: m.month.String(), PointID: e.ID, Point: e.Name, Path: string(e.Path)})
		r.blocked = true
		return nil
	case err == nil:
		sum := sha256.Sum256(data)
		same := hex.EncodeToString(sum[:]) == e.SHA256 && agrees(m.month, *e, info) == nil
		for i, n := range e.Days {
			if n > 0 && info.Days[i] >= n {
				short &^= 1 << i
			}
		}
		r.whole |= positive &^ short
		if same && attrs.ETag == e.ETag {
			return nil
		}
		if short == 0 && !same && hex.EncodeToString(sum[:]) != e.SHA256 && info.RowsSHA256 == e.RowsSHA256 {
			r.mend = &mending{rewrite: true, samples: info.Samples}
			return nil
		}
		if short == 0 {
			now, err := entry(e.Path, data, attrs.ETag, info)
			if err != nil {
				return err
			}
			m.changes = append(m.changes, manifests.Change{Point: e.ID, Base: e, Entry: now})
			r.whole |= info.Days.Archived()
			if !m.rebuild && !m.absent { // those take it as it is
				p.Fixes = append(p.Fixes, Fix{Action: "refresh", Month: m.month.String(), PointID: e.ID, Point: e.Name, Path: string(e.Path),
					Text: "a whole, newer version than the manifest names"})
			}
			return nil
		}
	case fault.Is(err, fault.NotExist):
	case !unreadable(err):
		p.block(err, Failure{Month: m.month.String(), PointID: e.ID, Point: e.Name, Path: string(e.Path)})
		r.blocked = true
		return nil
	}
	r.mend = &mending{lost: short, samples: max(e.Samples, int64(rows.Len()))}
	return nil
}

// unnamed looks at the objects in the month's folder that the manifest does not name.
func (p *RepairPlan) unnamed(ctx context.Context, env Env, m *monthRepair, listed map[object.Key]object.Attrs, chosen func(int32, string) bool) error {
	named := make(map[object.Key]bool)
	for i := range m.man.Points {
		named[m.man.Points[i].Path] = true
	}
	best := make(map[int32]*manifests.Entry)
	dec, rows := monthfile.NewDecoder().Timed(env.Timing), new(sample.Series)
	left := func(key object.Key, text string) {
		if p.o.Points.All() {
			p.Left = append(p.Left, Fix{Action: "left", Month: m.month.String(), Path: string(key), Text: text})
		}
	}
	for _, key := range sortedKeys(listed) {
		if named[key] {
			continue
		}
		data, attrs, err := env.Store.Get(ctx, key)
		if fault.Is(err, fault.NotExist) {
			continue
		}
		if err != nil {
			return err
		}
		p.Read += int64(len(data))
		info, err := dec.Decode(data, rows)
		if err != nil {
			if pt, ok := p.owner(m, key); ok && unreadable(err) && chosen(pt.ID, pt.Name) && m.man.Entry(pt.ID) == nil {
				r := m.point(pt.ID, pt.Name)
				r.point, r.unknown = pt, string(key)
				r.mend = &mending{lost: utc.SetOf(m.month, utc.Days{From: m.month.First(), To: p.now})}
			} else {
				left(key, fmt.Sprintf("no manifest names it, and it can not be read: %v", err))
			}
			continue
		}
		if info.Month != m.month {
			left(key, fmt.Sprintf("no manifest names it: point %d, %s", info.PointID, info.Month))
			continue
		}
		if e := m.man.Entry(info.PointID); e != nil && e.Path != "" {
			left(key, fmt.Sprintf("no manifest names it: %d samples of point %d, whose file is %s", info.Samples, info.PointID, e.Path))
			continue
		}
		if !chosen(info.PointID, info.PointName) {
			continue
		}
		e, err := entry(key, data, attrs.ETag, info)
		if err != nil {
			left(key, err.Error())
			continue
		}
		if b := best[e.ID]; b != nil {
			if b.Samples >= e.Samples {
				b, e = e, b
			}
			left(b.Path, fmt.Sprintf("no manifest names it: %d samples of point %d, of which %s has %d", b.Samples, b.ID, e.Path, e.Samples))
		}
		best[e.ID] = e
	}
	for _, id := range sortedKeys(best) {
		e := best[id]
		r := m.point(id, e.Name)
		r.whole |= e.Days.Archived()
		for i, n := range e.Days {
			r.counts[i] = max(r.counts[i], n)
		}
		m.changes = append(m.changes, manifests.Change{Point: id, Base: m.man.Entry(id), Entry: e})
		p.Fixes = append(p.Fixes, Fix{Action: "adopt", Month: m.month.String(), PointID: id, Point: e.Name, Path: string(e.Path),
			Text: fmt.Sprintf("a whole month file of %d samples that no manifest names", e.Samples)})
	}
	return nil
}

// owner is the point whose month file is called key, by the rule of names.
func (p *RepairPlan) owner(m *monthRepair, key object.Key) (sample.Point, bool) {
	points := p.all
	if len(points) == 0 && p.from != nil {
		points = p.from.catalog.Points
	}
	slug := strings.TrimSuffix(path.Base(string(key)), ".parquet")
	for _, pt := range points {
		if s := manifests.Slug(pt.Name); s == slug || fmt.Sprintf("%s-p%d", s, pt.ID) == slug {
			return pt, true
		}
	}
	return sample.Point{}, false
}

// fromReplica finds what the replica has of what is lost here, and what it has
// that was never known here, or is not any more.
func (p *RepairPlan) fromReplica(ctx context.Context, m *monthRepair, chosen func(int32, string) bool) error {
	if p.from == nil {
		return nil
	}
	man, _, err := manifests.Load(ctx, p.o.Replica, m.month)
	if fault.Is(err, fault.Corrupt) {
		p.Warnings = append(p.Warnings, fmt.Sprintf("replica: %v", err))
		return nil
	}
	// Of anything else it is not known what the replica holds, and what it holds
	// must not be declared lost.
	if err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	dec, rows := monthfile.NewDecoder(), new(sample.Series)
	for i := range man.Points {
		e := &man.Points[i]
		if !chosen(e.ID, e.Name) {
			continue
		}
		r := m.point(e.ID, e.Name)
		lacks := e.Days.Archived() &^ r.whole
		if lacks == 0 {
			continue
		}
		var zeros utc.Set
		for i, n := range e.Days {
			if n == 0 {
				zeros = zeros.With(i)
			}
		}
		for i, n := range r.counts {
			if n > 0 {
				zeros &^= 1 << i // it had samples here
			}
		}
		if zeros &= lacks; zeros != 0 {
			m.changes = append(m.changes, manifests.Change{Point: e.ID, Name: e.Name, Base: m.man.Entry(e.ID), Empty: zeros})
			p.Fixes = append(p.Fixes, Fix{Action: "refresh", Month: m.month.String(), PointID: e.ID, Point: e.Name, Text: "days that the replica knows to be empty"})
			r.whole |= zeros
		}
		if lacks &^= zeros; lacks == 0 || e.Path == "" {
			continue
		}
		got, err := p.from.read(ctx, dec, m.month, e, rows)
		if err != nil {
			return err
		}
		p.Read += int64(len(got.data))
		if got.data == nil {
			p.Warnings = append(p.Warnings, fmt.Sprintf("replica: %s is not whole, so it is no help", e.Path))
			continue
		}
		if r.mend == nil {
			r.mend = &mending{}
		}
		own := m.man.Entry(e.ID)
		r.mend.replica, r.mend.from = e, p.from
		r.unknown = "" // the replica says what it held
		r.mend.exact = own != nil && own.SHA256 == e.SHA256
		r.mend.samples += got.info.Samples
		r.mend.lost |= lacks
		for i, n := range e.Days {
			if lacks.Has(i) {
				r.counts[i] = max(r.counts[i], n)
			}
		}
	}
	return nil
}

// replica is another cold tier, read to mend this one.
type replica struct {
	store   object.Store
	catalog *manifests.Catalog
}

// read reads the month file of an entry of the replica into rows. The result has
// no data if it is not whole.
func (r *replica) read(ctx context.Context, dec *monthfile.Decoder, month utc.Month, e *manifests.Entry, rows *sample.Series) (rescued, error) {
	rows.Reset()
	if e.Path == "" {
		return rescued{}, nil
	}
	data, _, err := r.store.Get(ctx, e.Path)
	if fault.Is(err, fault.NotExist) {
		return rescued{}, nil
	}
	if err != nil {
		return rescued{}, fmt.Errorf("replica: %w", err)
	}
	info, err := dec.Decode(data, rows)
	if err != nil || info.PointID != e.ID || info.Month != month {
		rows.Reset()
		return rescued{}, nil
	}
	days := slices.Clone(info.Days)
	for i, n := range e.Days {
		if n == 0 && days[i] == sample.NotArchived {
			days[i] = 0
		}
	}
	return rescued{info: info, days: days, data: data}, nil
}

// rejects finds files of rejects that are damaged.
func (p *RepairPlan) rejects(ctx context.Context, env Env) error {
	if !p.o.Points.All() || p.o.Days != (utc.Days{}) {
		return nil
	}
	for a, err := range env.Store.List(ctx, rejectsPrefix) {
		if err != nil {
			return err
		}
		if a.Size == 0 || !strings.HasSuffix(string(a.Key), ".jsonl") {
			continue // an empty one stands for one that could not be read
		}
		data, _, err := env.Store.Get(ctx, a.Key)
		if fault.Is(err, fault.NotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if p.Read += int64(len(data)); !manifests.NamedByContent(a.Key, data) {
			p.reject = append(p.reject, a.Key)
			p.Fixes = append(p.Fixes, Fix{Action: "reject", Path: string(a.Key), Text: "its content is not that which its name says"})
		}
	}
	return nil
}

const rejectsPrefix = "_rejects/"

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
