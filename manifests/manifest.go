// Package manifests owns what the cold tier says of itself: the manifest of each
// month (its JSON format, validation, loading and the committer that changes
// it), the catalog points.json, and the rule that names month files.
//
// A manifest says, for every point of a month, where its month file is, the
// hashes of it, and one number or null for each day: how many samples are
// archived, 0 for a day archived empty, null for a day never archived. It
// decides which days are cold; the file gives their rows.
//
// Everything read from a store is untrusted: a manifest is checked in full
// before any part of it is used, and one that contradicts itself is Corrupt.
// The package knows nothing of Parquet: the facts of a month file come through
// a Describe function. It never deletes and never writes a month file.
package manifests

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/utc"
)

// Format and FormatVersion open every manifest. Other versions are refused.
const (
	Format        = "etl-manifest"
	FormatVersion = 1
)

// Schema is the JSON Schema (draft 2020-12) of a manifest. What it can not
// express (sums, order, uniqueness, days of the month) Decode checks.
//
//go:embed manifest.schema.json
var Schema []byte

// Entry is what a manifest says of one point.
type Entry struct {
	ID   int32  `json:"id"`
	Name string `json:"name"` // as the points table had it when the entry was last written
	// Path is the key of the month file, "" when every archived day was empty
	// and no file was ever written; Bytes and the hashes are then 0 and "".
	Path       object.Key       `json:"path"`
	Bytes      int64            `json:"bytes"`
	ETag       string           `json:"etag"`   // unquoted; names the version within this store
	SHA256     string           `json:"sha256"` // of the file, 64 lower-case hex digits
	RowsSHA256 string           `json:"rows_sha256"`
	Samples    int64            `json:"samples"`
	First      *int64           `json:"first"` // Unix milliseconds of the first and the last
	Last       *int64           `json:"last"`  // sample, inclusive; nil if there is none
	Days       sample.DayCounts `json:"days"`  // as long as the month
}

// Equal reports whether both entries say the same in every field.
func (e *Entry) Equal(o *Entry) bool {
	if e == nil || o == nil {
		return e == o
	}
	return e.ID == o.ID && e.Name == o.Name && e.Path == o.Path && e.Bytes == o.Bytes && e.ETag == o.ETag &&
		e.SHA256 == o.SHA256 && e.RowsSHA256 == o.RowsSHA256 && e.Samples == o.Samples &&
		sameInt(e.First, o.First) && sameInt(e.Last, o.Last) && slices.Equal(e.Days, o.Days)
}

func sameInt(a, b *int64) bool {
	return a == b || (a != nil && b != nil && *a == *b)
}

// Totals sums a manifest up.
type Totals struct {
	Points  int   `json:"points"`
	Files   int   `json:"files"` // points that have a month file
	Samples int64 `json:"samples"`
	Bytes   int64 `json:"bytes"`
}

// Manifest is what the cold tier holds of one month. A Manifest that this
// package returned is shared and never changes; nobody may write to it.
type Manifest struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	Commit  string    `json:"commit"` // random id of the commit that wrote it, "" for a month that has none
	Month   utc.Month `json:"month"`
	Totals  Totals    `json:"totals"`
	Points  []Entry   `json:"points"` // ascending by id
	// Checksum is written by Encode and checked by Decode, which leaves it empty.
	Checksum string `json:"checksum,omitempty"`
}

// Entry returns the entry of a point, or nil.
func (m *Manifest) Entry(id int32) *Entry {
	i, ok := slices.BinarySearchFunc(m.Points, id, func(e Entry, id int32) int { return cmp.Compare(e.ID, id) })
	if !ok {
		return nil
	}
	return &m.Points[i]
}

// newManifest is a manifest of the entries, which must be ascending by id.
func newManifest(month utc.Month, commit string, points []Entry) *Manifest {
	return &Manifest{Format: Format, Version: FormatVersion, Commit: commit, Month: month, Totals: total(points), Points: points}
}

func total(points []Entry) Totals {
	t := Totals{Points: len(points)}
	for i := range points {
		e := &points[i]
		if e.Path != "" {
			t.Files++
		}
		t.Samples += e.Samples
		t.Bytes += e.Bytes
	}
	return t
}

const prefix = "_manifests/"

// KeyOf is the key of a month's manifest, _manifests/2024-01.json.
func KeyOf(m utc.Month) object.Key { return object.Key(prefix + m.String() + ".json") }

// DirOf is the prefix of a month's files, timeseries/2024/01/.
func DirOf(m utc.Month) string {
	return fmt.Sprintf("timeseries/%04d/%02d/", m.Year(), m.Number())
}

// Version names the version of an object that was read: its ETag, or "" when
// there is no object.
type Version string

// Load reads and checks a month's manifest. A month that has none is an empty
// manifest and the version "", not an error. Corrupt means that the manifest
// contradicts itself or is no manifest; Invalid, that a newer etl wrote it.
func Load(ctx context.Context, store object.Store, month utc.Month) (*Manifest, Version, error) {
	data, attrs, err := store.Get(ctx, KeyOf(month))
	switch {
	case fault.Is(err, fault.NotExist):
		return newManifest(month, "", []Entry{}), "", nil
	case err != nil:
		return nil, "", fmt.Errorf("load the manifest of %s: %w", month, err)
	}
	// The bytes are nobody else's, so the text need not be copied: of a year of 4,500
	// points that is 36 MB, and touching them first takes longer than parsing them.
	m, err := decode(month, data, unsafe.String(unsafe.SliceData(data), len(data)))
	if err != nil {
		return nil, "", err
	}
	return m, Version(attrs.ETag), nil
}

// LoadTotals is Load for who needs no more than the sums of a month: of a manifest in
// etl's own layout, whose checksum is right, the points are not decoded, a tenth of the
// work. A month that has none has no sums.
func LoadTotals(ctx context.Context, store object.Store, month utc.Month) (Totals, error) {
	data, _, err := store.Get(ctx, KeyOf(month))
	switch {
	case fault.Is(err, fault.NotExist):
		return Totals{}, nil
	case err != nil:
		return Totals{}, fmt.Errorf("load the manifest of %s: %w", month, err)
	}
	if t, ok := head(month, data); ok {
		return t, nil
	}
	m, err := Decode(month, data)
	if err != nil {
		return Totals{}, err
	}
	return m.Totals, nil
}

// head is the totals of a manifest, if it is as Encode writes it: what is sealed was
// checked by who sealed it.
func head(month utc.Month, data []byte) (Totals, bool) {
	const sealed = len(closing) + 64 + len("\"\n}\n")
	end := bytes.Index(data, []byte(",\n\"points\":["))
	at := len(data) - sealed
	if end < 0 || at < end || !bytes.HasPrefix(data[at:], []byte(closing)) {
		return Totals{}, false
	}
	sum := string(data[at+len(closing) : at+len(closing)+64])
	if !summed(data, sum, func() []byte { return nil }) {
		return Totals{}, false
	}
	var m Manifest
	if json.Unmarshal(append(slices.Clone(data[:end]), '}'), &m) != nil {
		return Totals{}, false
	}
	return m.Totals, m.Format == Format && m.Version == FormatVersion && m.Month == month && m.Commit != ""
}

// Months lists, in order, the months that have a manifest. Only objects named
// _manifests/YYYY-MM.json count; none of them is opened.
func Months(ctx context.Context, store object.Store) ([]utc.Month, error) {
	var months []utc.Month
	for a, err := range store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list manifests: %w", err)
		}
		name, ok := strings.CutSuffix(strings.TrimPrefix(string(a.Key), prefix), ".json")
		if m, err := utc.ParseMonth(name); ok && err == nil && KeyOf(m) == a.Key {
			months = append(months, m)
		}
	}
	return months, nil
}

// Decode parses and checks the manifest of a month. The same fields in another
// order or layout are accepted, unknown fields ignored. Errors are as at Load.
func Decode(month utc.Month, data []byte) (*Manifest, error) {
	return decode(month, data, string(data))
}

// decode decodes data, which is text; all strings of the manifest are parts of that.
func decode(month utc.Month, data []byte, text string) (*Manifest, error) {
	key := KeyOf(month)
	corrupt := func(format string, a ...any) error {
		return fault.Hint(fault.Errorf(fault.Corrupt, "manifest %s: %w", key, fmt.Errorf(format, a...)),
			"`etl repair --month %s --dry-run` shows how it would be rebuilt from the footers of the month's files", month)
	}
	m, ok := scanManifest(text)
	if !ok {
		m = &Manifest{}
		if err := json.Unmarshal(data, m); err != nil {
			// A later version may have changed the type of a field: then it is refused, not corrupt.
			var head struct {
				Format  string
				Version int
			}
			if _ = json.Unmarshal(data, &head); head.Format != Format || head.Version <= FormatVersion {
				return nil, corrupt("%w", short(err))
			}
			m.Format, m.Version = head.Format, head.Version
		}
	}
	switch {
	case m.Format != Format:
		return nil, corrupt("format is %.40q, not %q", m.Format, Format)
	case m.Version > FormatVersion:
		return nil, refuse(key, m.Version, FormatVersion)
	case m.Version != FormatVersion:
		return nil, corrupt("there is no version %d", m.Version)
	case m.Month != month:
		return nil, corrupt("it is of month %s", m.Month)
	case m.Commit == "":
		return nil, corrupt("it has no commit id")
	case m.Points == nil:
		return nil, corrupt("it has no list of points")
	}
	dir := DirOf(month)
	paths := make(map[object.Key]int32, len(m.Points))
	for i := range m.Points {
		e := &m.Points[i]
		if i > 0 && e.ID <= m.Points[i-1].ID {
			return nil, corrupt("point %d follows point %d: want ascending ids, none twice", e.ID, m.Points[i-1].ID)
		}
		if err := e.check(month, dir); err != nil {
			return nil, corrupt("point %d: %w", e.ID, err)
		}
		if e.Path == "" {
			continue
		}
		if other, taken := paths[e.Path]; taken {
			return nil, corrupt("points %d and %d share the file %s", other, e.ID, e.Path)
		}
		paths[e.Path] = e.ID
	}
	if t := total(m.Points); t != m.Totals {
		return nil, corrupt("totals are %+v but the points make %+v", m.Totals, t)
	}
	if !summed(data, m.Checksum, func() []byte { return body(m) }) {
		return nil, corrupt("its checksum is not that of what it says")
	}
	m.Checksum = ""
	return m, nil
}

// closing ends what a checksum was added to, and seal adds it: the SHA-256 of all
// before it. The sums and the order that Decode checks do not see a changed id, name
// or ETag; this does.
const closing = ",\n\"checksum\":\""

func seal(body []byte) []byte {
	sum := sha256.Sum256(body)
	body = append(body, closing...)
	return append(hex.AppendEncode(body, sum[:]), "\"\n}\n"...)
}

// summed reports whether checksum, if there is one, is that of data, or of what
// data says in etl's own layout.
func summed(data []byte, checksum string, own func() []byte) bool {
	if checksum == "" {
		return true // other writers need not know of it
	}
	is := func(b []byte) bool { sum := sha256.Sum256(b); return hex.EncodeToString(sum[:]) == checksum }
	return bytes.HasSuffix(data, []byte(closing+checksum+"\"\n}\n")) && is(data[:bytes.LastIndex(data, []byte(closing))]) || is(own())
}

// short is err without the megabytes that it may quote of a hostile input.
func short(err error) error {
	if s := err.Error(); len(s) > 300 {
		return fmt.Errorf("%.300s…", s)
	}
	return err
}

func refuse(key object.Key, version, reads int) error {
	return fault.Hint(fault.Errorf(fault.Invalid, "%s: refused: version %d, this etl reads version %d", key, version, reads),
		"a newer etl wrote it: upgrade this one")
}

// maxBytes bounds the size of a month file, so that sums of untrusted sizes
// stay far from overflow. A sample a millisecond makes 2.7e9 a month, which at
// the worst measured 10 B each is 27 GB, a fortieth of 1 TiB.
const maxBytes = 1 << 40

// maxETag bounds an ETag in bytes; those of stores have 32 to 70.
const maxETag = 1024

// control reports whether a terminal, or a header of HTTP, may take r for a command.
func control(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }

// check says what in the entry contradicts itself or the month, whose files are in dir, if anything.
func (e *Entry) check(month utc.Month, dir string) error {
	if len(e.Days) != month.Len() {
		return fmt.Errorf("%d days, %s has %d", len(e.Days), month, month.Len())
	}
	start := month.First()
	first, last := -1, -1
	for i, n := range e.Days {
		if n > 0 {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	if n := e.Days.Samples(); n != e.Samples {
		return fmt.Errorf("%d samples but the days make %d", e.Samples, n)
	}
	switch empty := e.Samples == 0; {
	case (e.First == nil) != empty || (e.Last == nil) != empty:
		return errors.New("first and last must be null if, and only if, there is no sample")
	case !empty && (!onDay(*e.First, start, first) || !onDay(*e.Last, start, last) || *e.First > *e.Last):
		return fmt.Errorf("first %d and last %d are not on the first and last day that has samples", *e.First, *e.Last)
	}
	if e.Path == "" {
		if e.Samples != 0 || e.Bytes != 0 || e.ETag != "" || e.SHA256 != "" || e.RowsSHA256 != "" {
			return errors.New("no path, but facts of a file")
		}
		if e.Days.Archived() == 0 {
			return errors.New("neither a file nor an archived day")
		}
		return nil
	}
	if err := e.Path.Check(); err != nil {
		return err
	}
	switch name := strings.TrimPrefix(string(e.Path), dir); {
	case !strings.HasPrefix(string(e.Path), dir) || path.Ext(name) != ".parquet" || path.Base(name) == ".parquet":
		return fmt.Errorf("path %.200q is not %s<name>.parquet", e.Path, dir)
	case strings.ContainsFunc(name, control):
		return fmt.Errorf("path %.200q has control characters", e.Path)
	case e.Bytes < 1 || e.Bytes > maxBytes:
		return fmt.Errorf("a file of %d bytes", e.Bytes)
	case e.ETag == "" || len(e.ETag) > maxETag || strings.Contains(e.ETag, `"`) || strings.ContainsFunc(e.ETag, control):
		return fmt.Errorf("etag %.80q", e.ETag)
	case !sample.IsSHA256(e.SHA256):
		return fmt.Errorf("sha256 %.80q is not 64 hex digits", e.SHA256)
	case !sample.IsSHA256(e.RowsSHA256):
		return fmt.Errorf("rows_sha256 %.80q is not 64 hex digits", e.RowsSHA256)
	}
	return nil
}

// onDay reports whether the instant lies on the i-th day of the month that begins with start.
func onDay(ms int64, start utc.Day, i int) bool {
	day := start + utc.Day(i)
	return ms >= day.Start() && ms < day.End()
}

// Encode writes a manifest: the same manifest always as the same bytes, one
// point a line, so that a diff or a grep shows points.
func Encode(m *Manifest) []byte { return seal(body(m)) }

// body is a manifest as far as its checksum reaches.
func body(m *Manifest) []byte {
	b := make([]byte, 0, 384+640*len(m.Points))
	b = append(b, "{\n\"format\":\""+Format+"\",\n\"version\":"...)
	b = strconv.AppendInt(b, FormatVersion, 10)
	b = sample.AppendJSONString(append(b, ",\n\"commit\":"...), m.Commit)
	b = sample.AppendJSONString(append(b, ",\n\"month\":"...), m.Month.String())
	b = appendInt(append(b, ",\n\"totals\":{\"points\":"...), int64(m.Totals.Points))
	b = appendInt(append(b, ",\"files\":"...), int64(m.Totals.Files))
	b = appendInt(append(b, ",\"samples\":"...), m.Totals.Samples)
	b = appendInt(append(b, ",\"bytes\":"...), m.Totals.Bytes)
	b = append(b, "},\n\"points\":["...)
	for i := range m.Points {
		if i > 0 {
			b = append(b, ',')
		}
		b = m.Points[i].appendJSON(append(b, '\n'))
	}
	return append(b, "\n]"...)
}

func (e *Entry) appendJSON(b []byte) []byte {
	b = appendInt(append(b, `{"id":`...), int64(e.ID))
	b = sample.AppendJSONString(append(b, `,"name":`...), e.Name)
	b = sample.AppendJSONString(append(b, `,"path":`...), string(e.Path))
	b = appendInt(append(b, `,"bytes":`...), e.Bytes)
	b = sample.AppendJSONString(append(b, `,"etag":`...), e.ETag)
	b = sample.AppendJSONString(append(b, `,"sha256":`...), e.SHA256)
	b = sample.AppendJSONString(append(b, `,"rows_sha256":`...), e.RowsSHA256)
	b = appendInt(append(b, `,"samples":`...), e.Samples)
	b = appendOptional(append(b, `,"first":`...), e.First)
	b = appendOptional(append(b, `,"last":`...), e.Last)
	b = append(b, `,"days":[`...)
	for i, n := range e.Days {
		if i > 0 {
			b = append(b, ',')
		}
		if n == sample.NotArchived {
			b = append(b, "null"...)
		} else {
			b = appendInt(b, int64(n))
		}
	}
	return append(b, "]}"...)
}

func appendInt(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) }

func appendOptional(b []byte, n *int64) []byte {
	if n == nil {
		return append(b, "null"...)
	}
	return appendInt(b, *n)
}

// Clean is s as JSON can hold it: each byte that is not UTF-8 becomes U+FFFD.
// What is compared with a decoded string must be clean, or each run would find
// a difference and write again.
func Clean(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}
