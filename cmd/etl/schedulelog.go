package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"

	"etl/internal/schedule"
)

// nightNote says something of the service: a line on a terminal, JSON elsewhere.
func (a *app) nightNote(text string, fields map[string]any) {
	a.nightLine(zerolog.InfoLevel, text, fields)
}

func (a *app) nightLine(level zerolog.Level, text string, fields map[string]any) {
	if a.quiet && level < zerolog.WarnLevel {
		return
	}
	if f, ok := a.stderr.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		log := zerolog.New(jsonWriter{a.stderr}).With().Timestamp().Str("command", "schedule").Logger()
		log.WithLevel(level).Fields(fields).Msg(text)
		return
	}
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		if s := fmt.Sprint(fields[k]); s != "" {
			fmt.Fprintf(&b, "  %s=%s", k, printableLine(s))
		}
	}
	fmt.Fprintf(a.stderr, "%s  %s%s\n", time.Now().UTC().Format("2006-01-02 15:04:05Z"), text, b.String())
}

// nightLog turns the events of the schedule into lines.
func (a *app) nightLog() func(schedule.Event) {
	stamp := func(t time.Time) string { return t.Format(time.RFC3339) }
	return func(e schedule.Event) {
		switch e := e.(type) {
		case schedule.Waiting:
			a.nightNote("waiting for the next night", map[string]any{"next": stamp(e.Next)})
		case schedule.Jumped:
			a.nightLine(zerolog.WarnLevel, "the clock was set back; the next night is worked out anew", map[string]any{"from": stamp(e.From), "to": stamp(e.To)})
		case schedule.GaveUp:
			a.nightLine(zerolog.WarnLevel, "the night that was due is not tried again: it began so often already; look into what the runs before it said", map[string]any{"due": stamp(e.Due), "tries": e.Tries})
		case schedule.Began:
			a.nightNote("the night begins", map[string]any{"due": stamp(e.Due), "late": e.Late})
		case schedule.StepBegan:
			a.nightNote("step begins", map[string]any{"step": e.Step, "attempt": e.Attempt})
		case schedule.StepEnded:
			level := zerolog.InfoLevel
			switch e.Outcome.State {
			case schedule.Findings, schedule.Interrupted:
				level = zerolog.WarnLevel
			case schedule.Failed, schedule.Halted:
				level = zerolog.ErrorLevel
			}
			fields := map[string]any{"step": e.Step, "attempt": e.Attempt, "state": e.Outcome.State, "exit_code": e.Outcome.Code,
				"seconds": e.Took.Seconds(), "summary": e.Outcome.Summary}
			for name, text := range map[string]string{"error": e.Outcome.Error, "hint": e.Outcome.Hint} {
				if text != "" {
					fields[name] = text
				}
			}
			a.nightLine(level, "step ended", fields)
		case schedule.Pausing:
			a.nightLine(zerolog.WarnLevel, "steps are tried again after a pause", map[string]any{"steps": strings.Join(e.Steps, ", "), "seconds": e.Wait.Seconds()})
		case schedule.Ended:
			level := zerolog.InfoLevel
			if !e.Succeeded() {
				level = zerolog.ErrorLevel
			}
			a.nightLine(level, "the night has ended", map[string]any{"due": stamp(e.Due), "exit_code": e.Code, "seconds": e.Finished.Sub(e.Started).Seconds()})
		}
	}
}
