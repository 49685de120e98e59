// Package monthfile owns the month file: the Parquet file that holds one
// point's samples of one UTC month. It encodes, decodes and inspects exactly
// that format, version 1 of the cold tier (docs/format.md), with a codec of its
// own: any Parquet reader can read what it writes, while it reads nothing but
// month files.
//
// Terms: the facts are the JSON object that the footer carries under the key
// "etl" (version, point, month, day counts, hash of the rows); a chunk is one
// column of one row group; a page is the unit of compression inside a chunk.
//
// The same rows and Meta give the same bytes, whatever an Encoder encoded
// before, within one build. Every input to Decode and Inspect is untrusted:
// they never panic, and allocate at most a fixed multiple of what each page
// they have met can hold.
//
// The package refuses to guess: a file that is not wholly consistent is
// Corrupt, a file that is not a month file is Invalid (ErrForeign, or a
// VersionError if a later etl wrote it).
package monthfile

import (
	"errors"
	"fmt"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/utc"
)

// Version is the format version that this package writes and reads.
const Version = 1

// Writer names this encoder in the files (created_by). Its number changes
// whenever the same rows would give other bytes.
const Writer = "etl version 1.0.0"

// Limits of the format. A writer keeps to the first two, a reader relies on
// the others to bound what a page can make it allocate.
const (
	groupRows = 1_000_000 // rows of a row group that are written, at most
	pageRows  = 64 << 10  // rows of a page that are written, at most: 512 KiB of values

	maxRows      = 1 << 26 // of a file: 25 samples a second, all month
	maxGroupRows = 1 << 20
	maxPageRows  = 1 << 20
	// A row of a page takes at most 8 bytes; DELTA_BINARY_PACKED may pad the
	// last block, and levels and headers take a little.
	maxPageBytesPerRow = 16
	maxPageBytesExtra  = 4096
)

// Codec is how the pages of a chunk are compressed.
type Codec uint8

const (
	// Zstd is the default codec.
	Zstd Codec = iota
	// Snappy gives larger files that more and older readers understand.
	Snappy
	// Uncompressed is what Info reports when compression gained nothing; it can not be asked for.
	Uncompressed
)

var codecNames = [...]string{"zstd", "snappy", "uncompressed"}

// String names the codec as flags and reports do.
func (c Codec) String() string { return codecNames[c] }

// ParseCodec reads the name of a codec that can be asked for.
func ParseCodec(s string) (Codec, error) {
	switch s {
	case "zstd":
		return Zstd, nil
	case "snappy":
		return Snappy, nil
	}
	return 0, fault.Errorf(fault.Usage, "want zstd or snappy, got %q", s)
}

// Options say how to encode. The zero value is the default.
type Options struct {
	Codec Codec // Zstd or Snappy; a chunk that the codec does not shrink is stored uncompressed
}

// Encoding is a Parquet encoding of values.
type Encoding uint8

// The encodings that the value column may have, by their Parquet numbers.
const (
	Plain           Encoding = 0
	Delta           Encoding = 5
	Dictionary      Encoding = 8
	ByteStreamSplit Encoding = 9
)

const encRLE = 3 // of levels only

// String names the encoding as the Parquet specification does.
func (e Encoding) String() string {
	switch e {
	case Plain:
		return "PLAIN"
	case Delta:
		return "DELTA_BINARY_PACKED"
	case Dictionary:
		return "RLE_DICTIONARY"
	case ByteStreamSplit:
		return "BYTE_STREAM_SPLIT"
	}
	return fmt.Sprintf("encoding %d", uint8(e))
}

// Meta is what a month file says about itself beside its rows.
type Meta struct {
	PointID   int32
	PointName string // UTF-8: JSON can hold no other
	Month     utc.Month
	// Days has one entry per day of the month. A day with samples has their
	// number; a day without has 0 or sample.NotArchived.
	Days sample.DayCounts
}

// Info describes a month file.
type Info struct {
	Meta
	RowsSHA256    string // of the canonical rows, hex: see sample.Series.RowsSHA256
	Samples       int64
	First, Last   int64 // Unix milliseconds of the first and the last sample, 0 if there is none
	Codec         Codec // of the value column, in the first row group
	ValueEncoding Encoding
	RowGroups     int
	CreatedBy     string
}

// ErrForeign is in the chain of the error for a file that is no month file: not
// Parquet, or a Parquet file without the facts. Its kind is Invalid.
var ErrForeign = errors.New("not a month file of etl")

// VersionError is in the chain of the error for a month file of a later format
// version. Its kind is Invalid.
type VersionError struct{ Version int64 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("format version %d, this etl reads version %d", e.Version, Version)
}

func corrupt(format string, a ...any) error {
	return fault.Errorf(fault.Corrupt, "month file: "+format, a...)
}

func foreign(why string) error {
	return fault.Errorf(fault.Invalid, "%w: %s", ErrForeign, why)
}
