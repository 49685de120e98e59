package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"etl/internal/fleet"
)

// statusRuns is how often etl status looks, each a process of its own.
const statusRuns = 5

// operate measures etl status over the embedded default: a month of the fleet, archived,
// with a mark for each (point, day).
func (b *bench) operate(ctx context.Context) error {
	d, err := b.data(ctx, fleet.Bench(b.points, b.days))
	if err != nil {
		return err
	}
	places := []string{"--source", d.source(), "--store", "file:" + b.fresh("operated"), "--json",
		"--now", d.fleet.Days().To.Time().Add(2 * time.Hour).Format(time.RFC3339)}
	b.say("etl status over %s rows, %d runs", millions(d.rows(b.days)), statusRuns)
	if _, err := b.runEtl(ctx, append([]string{"archive"}, places...)...); err != nil {
		return err
	}
	var walls []time.Duration
	for k := range statusRuns {
		var out bytes.Buffer
		// The fleet's last sample is two hours old.
		c, err := b.askEtl(ctx, &out, append([]string{"status", "--limit-freshness", "off"}, places...)...)
		if err != nil {
			return err
		}
		if err := checkStatus(out.Bytes(), d.rows(b.days)); err != nil {
			return err
		}
		walls = append(walls, c.Wall)
		b.report.run("etl status, run %d: %s, CPU %s, peak %s", k+1, milli(c.Wall), milli(c.CPU), megabytes(c.RSS))
	}
	b.report.within(fmt.Sprintf("etl status, %s points, %s rows in SQLite, archived", count(int64(b.points)), millions(d.rows(b.days))), median(walls), 300*time.Millisecond)
	return nil
}

// checkStatus fails unless a status saw all of it: every sample archived, nothing late,
// readings of the last day.
func checkStatus(report []byte, samples int64) error {
	var r struct {
		Lines []struct {
			Name, State, Text string
			Value             *float64
		}
	}
	if err := json.Unmarshal(report, &r); err != nil {
		return err
	}
	seen := 0
	for _, l := range r.Lines {
		switch l.Name {
		case "backlog", "late", "silent":
			if l.Value == nil || *l.Value != 0 {
				return fmt.Errorf("status says of %s: %s", l.Name, l.Text)
			}
		case "cold":
			if !bytes.Contains([]byte(l.Text), []byte(" "+count(samples)+" samples")) {
				return fmt.Errorf("status says of %d samples: %s", samples, l.Text)
			}
		case "quality", "size", "freshness":
			if l.Value == nil {
				return fmt.Errorf("status does not know the %s: %s", l.Name, l.Text)
			}
		default:
			continue
		}
		seen++
	}
	if seen != 7 {
		return fmt.Errorf("status has %d of 7 lines", seen)
	}
	return nil
}
