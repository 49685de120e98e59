package auditpage

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"etl/jobs"
)

// The packed report, which page.js unpacks: base64 of gzip of
//
//	uint32, little endian   length of the header
//	header                  JSON: what there is once, and all text
//	columns                 in the order of their lengths in the header
//
// A column is a sequence of varints (as encoding/binary has them, zigzag where a
// number may be negative). Where a number may be missing, 0 is none and n+1 is n.
// Columns of points come first, then those of days, row by row, then those of
// the gaps listed, point by point. Differences are stored where they are mostly
// zero, and gzip does the rest.
type header struct {
	Version   int           `json:"version"` // packVersion
	Zone      string        `json:"zone"`
	Fast      bool          `json:"fast"`
	Tolerance float64       `json:"tolerance"`
	Silence   int64         `json:"silence"`
	DayStarts []int64       `json:"dayStarts"`
	Names     []string      `json:"names"` // of the points
	Texts     []string      `json:"texts"` // systems, equipment, units, notes, by number; 0 is ""
	Quality   []packSuspect `json:"quality"`
	Gaps      int           `json:"gaps"`    // listed
	Omitted   int           `json:"omitted"` // gaps that were left out: shorter than any listed
	Columns   []int         `json:"columns"` // their lengths
}

const packVersion = 1

type packSuspect struct {
	Point   int      `json:"point"` // its place among the points
	Rule    string   `json:"rule"`
	From    int64    `json:"from"`
	To      int64    `json:"to"`
	Samples int64    `json:"samples"`
	Value   *float64 `json:"value"` // null where it is not finite
	Limit   *float64 `json:"limit"`
	Text    string   `json:"text"`
}

// States of a day and kinds of a gap, by number in the packed report.
var (
	states = []jobs.DayState{jobs.DayOutside, jobs.DayWhole, jobs.DayHoles, jobs.DayEmpty, jobs.DayNotArchived, jobs.DaySome, jobs.DayUnread}
	kinds  = []string{"inner", "head", "tail", "empty"}
)

// likely is the state of a day going by its numbers; the packed report has 0
// for a day in that state, for others one more than their number.
func likely(d jobs.AuditDay) jobs.DayState {
	switch {
	case d.Expected == 0 && d.Present > 0:
		return jobs.DaySome
	case d.Expected == 0:
		return jobs.DayOutside
	case d.Present >= d.Expected:
		return jobs.DayWhole
	case d.Present > 0:
		return jobs.DayHoles
	}
	return jobs.DayEmpty
}

type column struct{ b []byte }

func (c *column) uint(v uint64) { c.b = binary.AppendUvarint(c.b, v) }
func (c *column) int(v int64)   { c.b = binary.AppendVarint(c.b, v) }

// opt appends a number that may be missing. Only what is far beyond any time
// or count, in the topmost of 64 bits, is lost.
func (c *column) opt(v *int64) {
	if v == nil {
		c.uint(0)
		return
	}
	c.uint((uint64(*v)<<1 ^ uint64(*v>>63)) + 1)
}

// texts numbers strings.
type texts struct {
	list   []string
	number map[string]uint64
}

func (t *texts) of(s string) uint64 {
	n, ok := t.number[s]
	if !ok {
		n = uint64(len(t.list))
		t.list, t.number[s] = append(t.list, s), n
	}
	return n
}

// pack is the report as the page holds it, with at most maxGaps gaps: the longest.
func pack(r *jobs.AuditReport, maxGaps int) (string, error) {
	days := max(len(r.DayStarts)-1, 0)
	if days == 0 && len(r.Points) > 0 {
		return "", errors.New("audit page: the report has points and no days")
	}
	h := header{
		Version: packVersion, Zone: r.Zone, Fast: r.Fast, Tolerance: finite(r.Tolerance), Silence: r.Silence,
		DayStarts: append([]int64{}, r.DayStarts...), Names: []string{}, Quality: []packSuspect{},
	}
	tx := texts{number: make(map[string]uint64)}
	tx.of("")

	place := make(map[int32]int, len(r.Points))
	for i := range r.Points {
		place[r.Points[i].ID] = i
	}
	gaps, err := byPoint(r, place, maxGaps)
	if err != nil {
		return "", err
	}

	var pt [17]column
	var state, due, lack column
	stateNumber := make(map[jobs.DayState]byte, len(states))
	for i, s := range states {
		stateNumber[s] = byte(i)
	}
	var id int64
	for i := range r.Points {
		p := &r.Points[i]
		if len(p.Days) != days {
			return "", fmt.Errorf("audit page: point %d has %d days in a range of %d", p.ID, len(p.Days), days)
		}
		h.Names = append(h.Names, p.Name)
		pt[0].int(int64(p.ID) - id)
		id = int64(p.ID)
		pt[1].uint(tx.of(p.System))
		pt[2].uint(tx.of(p.Equipment))
		pt[3].uint(tx.of(p.Unit))
		pt[4].opt(p.Interval)
		var measured uint64
		if p.Measured {
			measured = 1
		}
		pt[5].uint(measured)
		pt[6].int(p.From - r.DayStarts[0])
		pt[7].int(p.To - r.DayStarts[days])
		pt[8].opt(p.First)
		pt[9].opt(p.Last)
		pt[10].opt(p.Expected)
		pt[11].int(p.Present)
		pt[12].int(p.Missing)
		pt[13].int(p.Known)
		pt[14].int(int64(p.Gaps))
		pt[15].int(p.Longest)
		pt[16].uint(uint64(len(gaps[i])))
		var before int32
		for _, d := range p.Days {
			n, ok := stateNumber[d.State]
			if !ok {
				return "", fmt.Errorf("audit page: point %d has a day in the unknown state %q", p.ID, d.State)
			}
			if d.State == likely(d) {
				n = 0
			} else {
				n++
			}
			state.b = append(state.b, n)
			due.int(int64(d.Expected) - int64(before))
			before = d.Expected
			lack.int(int64(d.Expected) - int64(d.Present))
		}
	}

	var gp [10]column
	for i := range r.Points {
		// Times are split by the interval: regular points leave no remainder.
		at, unit := r.Points[i].From, int64(1000)
		if iv := r.Points[i].Interval; iv != nil && *iv > 0 {
			unit = *iv
		}
		for _, g := range gaps[i] {
			k := slices.Index(kinds, g.Kind)
			if k < 0 {
				return "", fmt.Errorf("audit page: point %d has a gap of the unknown kind %q", g.PointID, g.Kind)
			}
			known := 0
			if g.Known {
				known = 1
			}
			gp[0].uint(uint64(k<<1 | known))
			silent := g.To - g.From
			gp[1].int((g.From - at) / unit)
			gp[2].int((g.From - at) % unit)
			gp[3].int(silent / unit)
			gp[4].int(silent % unit)
			gp[5].opt(less(g.After, g.From))
			gp[6].opt(less(g.Before, g.To))
			gp[7].int(g.Length - silent)
			gp[8].opt(less(g.Missing, silent/unit))
			gp[9].uint(tx.of(g.Note))
			at = g.To
			h.Gaps++
		}
	}
	h.Omitted = len(r.Gaps) - h.Gaps

	for _, s := range r.Quality {
		i, ok := place[s.PointID]
		if !ok {
			return "", fmt.Errorf("audit page: a finding names point %d, which is not in the report", s.PointID)
		}
		h.Quality = append(h.Quality, packSuspect{i, s.Rule, s.From, s.To, s.Samples, number(s.Value), number(s.Limit), s.Text})
	}
	h.Texts = tx.list

	var body []byte
	for _, cs := range [][]column{pt[:], {state, due, lack}, gp[:]} {
		for _, c := range cs {
			h.Columns = append(h.Columns, len(c.b))
			body = append(body, c.b...)
		}
	}
	return seal(h, body)
}

func seal(h header, body []byte) (string, error) {
	head, err := json.Marshal(h)
	if err != nil {
		return "", fmt.Errorf("audit page: %w", err)
	}
	var out bytes.Buffer
	// The best level takes ten times as long for 3 % less.
	z := gzip.NewWriter(&out)
	for _, part := range [][]byte{binary.LittleEndian.AppendUint32(nil, uint32(len(head))), head, body} {
		if _, err := z.Write(part); err != nil {
			return "", err
		}
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	return lines(base64.StdEncoding.EncodeToString(out.Bytes())), nil
}

// byPoint shares out the gaps to the places of their points, at most limit of
// them: the longest.
func byPoint(r *jobs.AuditReport, place map[int32]int, limit int) ([][]*jobs.Gap, error) {
	shortest, ties := int64(math.MinInt64), 0
	if len(r.Gaps) > limit {
		lengths := make([]int64, len(r.Gaps))
		for i := range r.Gaps {
			lengths[i] = r.Gaps[i].Length
		}
		slices.Sort(lengths)
		slices.Reverse(lengths)
		if limit == 0 {
			return make([][]*jobs.Gap, len(r.Points)), nil
		}
		shortest = lengths[limit-1]
		for _, l := range lengths[:limit] {
			if l == shortest {
				ties++
			}
		}
	}
	out := make([][]*jobs.Gap, len(r.Points))
	for i := range r.Gaps {
		g := &r.Gaps[i]
		at, ok := place[g.PointID]
		if !ok {
			return nil, fmt.Errorf("audit page: a gap names point %d, which is not in the report", g.PointID)
		}
		if g.Length < shortest {
			continue
		}
		if g.Length == shortest {
			if ties == 0 {
				continue
			}
			ties--
		}
		out[at] = append(out[at], g)
	}
	return out, nil
}

// less is the distance of a number from one that it is close to.
func less(n *int64, from int64) *int64 {
	if n == nil {
		return nil
	}
	return new(*n - from)
}

func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}

func number(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// lines breaks text, so that editors can open the page.
func lines(s string) string {
	const width = 1000
	var b strings.Builder
	b.Grow(len(s) + len(s)/width + 1)
	for len(s) > width {
		b.WriteString(s[:width])
		b.WriteByte('\n')
		s = s[width:]
	}
	b.WriteString(s)
	return b.String()
}
