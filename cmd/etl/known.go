package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"etl/internal/fault"
	"etl/jobs"
)

// maxKnown bounds a file of acknowledged outages, in bytes.
const maxKnown = 16 << 20

// readKnown reads a file of acknowledged outages.
func readKnown(path string) ([]jobs.Outage, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "--known: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKnown+1))
	if err == nil && len(data) > maxKnown {
		err = errors.New("it is longer than 16 MiB")
	}
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "--known %s: %w", path, err)
	}
	known, err := parseKnown(path, string(data))
	return known, fault.Hint(err, "a line is point,from,to,note: a glob of names, two times in UTC like 2024-01-05 or 2024-01-05T13:00Z, and why; docs/audit.md has an example")
}

// parseKnown reads acknowledged outages: CSV of a glob of names, the first moment,
// the moment after the last one, and a note, which may be left out. Empty lines,
// lines that begin with # and the line of names are passed over. All lines that are
// wrong are named, ten at most.
func parseKnown(name, text string) ([]jobs.Outage, error) {
	r := csv.NewReader(strings.NewReader(strings.TrimPrefix(text, "\ufeff")))
	r.Comment, r.FieldsPerRecord, r.TrimLeadingSpace = '#', -1, true
	var known []jobs.Outage
	var wrong []error
	add := func(line int, format string, a ...any) {
		wrong = append(wrong, fmt.Errorf("%s:%d: %w", name, line, fmt.Errorf(format, a...)))
	}
	for n := 0; len(wrong) < 10; n++ {
		fields, err := r.Read()
		if err == io.EOF {
			break
		}
		if e := new(csv.ParseError); errors.As(err, &e) {
			add(e.Line, "%w", e.Err)
			break // where the next line begins nobody knows
		}
		if err != nil {
			return nil, err
		}
		line, _ := r.FieldPos(0)
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		if n == 0 && len(fields) >= 3 && strings.EqualFold(strings.Join(fields[:3], ","), "point,from,to") {
			continue
		}
		if len(fields) < 3 || len(fields) > 4 {
			add(line, "want point,from,to,note, got %d fields", len(fields))
			continue
		}
		if fields[0] == "" {
			add(line, "no point: * stands for all")
			continue
		}
		k := jobs.Outage{Points: fields[0]}
		var err1, err2 error
		k.From, err1 = parseMoment(fields[1])
		k.To, err2 = parseMoment(fields[2])
		switch {
		case err1 != nil:
			add(line, "from: %w", err1)
			continue
		case err2 != nil:
			add(line, "to: %w", err2)
			continue
		case k.From >= k.To:
			add(line, "it begins at %s and ends at %s: to is the moment after the last one", fields[1], fields[2])
			continue
		}
		if len(fields) == 4 {
			k.Note = fields[3]
		}
		known = append(known, k)
	}
	if len(wrong) > 0 {
		return nil, fault.Wrap(fault.Usage, errors.Join(wrong...))
	}
	return known, nil
}

// parseMoment reads a time; without an offset it is UTC, and a day is its beginning.
func parseMoment(s string) (int64, error) {
	for _, layout := range []string{time.DateOnly, "2006-01-02T15:04Z07:00", time.RFC3339, "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02T15:04:05", time.DateTime} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UnixMilli(), nil
		}
	}
	return 0, fmt.Errorf("%q is no time: want one like 2024-01-05 or 2024-01-05T13:00Z", s)
}
