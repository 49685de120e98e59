package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// cost is what a run took.
type cost struct {
	Wall time.Duration // from start to exit
	CPU  time.Duration // user and system, of all threads
	RSS  int64         // peak resident memory, bytes
}

// measure runs a program to its end, with env added to this process's
// environment. An error carries the end of what it wrote to stderr.
func measure(ctx context.Context, env []string, stdout, stderr io.Writer, program string, args ...string) (cost, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(cmd.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = stdout, io.MultiWriter(stderr, &said)
	start := time.Now()
	err := cmd.Run()
	c := cost{Wall: time.Since(start)}
	if err != nil {
		text := said.String()
		return c, fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, text[max(0, len(text)-2000):])
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	c.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	c.RSS = int64(usage.Maxrss)
	if runtime.GOOS != "darwin" { // which counts bytes, others KiB
		c.RSS *= 1024
	}
	return c, nil
}

// child runs this program's own binary as the child named, with its options as
// JSON, and reads its answer.
func (b *bench) child(ctx context.Context, name string, options, answer any) (cost, error) {
	in, err := json.Marshal(options)
	if err != nil {
		return cost{}, err
	}
	var out bytes.Buffer
	c, err := measure(ctx, nil, &out, b.log, b.self, childArg, name, string(in))
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(out.Bytes(), answer); err != nil {
		return c, fmt.Errorf("answer of child %s: %w", name, err)
	}
	return c, nil
}

// serve starts this program's own binary as the child named, one that serves
// until stop is called, and reads its answer.
func (b *bench) serve(ctx context.Context, name string, options, answer any) (stop func() error, err error) {
	in, err := json.Marshal(options)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, b.self, childArg, name, string(in))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Stderr = b.log
	stdin, err := cmd.StdinPipe() // it ends when this one does
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() error { return errors.Join(stdin.Close(), cmd.Wait()) }
	if err := json.NewDecoder(stdout).Decode(answer); err != nil {
		return nil, errors.Join(fmt.Errorf("answer of child %s: %w", name, err), stop())
	}
	return stop, nil
}

// runEtl runs the etl binary quietly, with b.env; what it says matters only if
// it fails.
func (b *bench) runEtl(ctx context.Context, args ...string) (cost, error) {
	return b.askEtl(ctx, io.Discard, args...)
}

// askEtl is runEtl with what the etl prints.
func (b *bench) askEtl(ctx context.Context, stdout io.Writer, args ...string) (cost, error) {
	settle()
	return measure(ctx, b.env, stdout, io.Discard, b.etl, args...)
}

// settle waits until nothing of earlier runs is left to be written to disk.
func settle() { syscall.Sync() }

// median of at least one duration or size; of an even number the lower one of the middle two.
func median[T time.Duration | int64](xs []T) T {
	s := slices.Sorted(slices.Values(xs))
	return s[(len(s)-1)/2]
}

// medianCost takes the median of each of the runs' numbers, but the highest memory.
func medianCost(runs []cost) cost {
	var wall, cpu []time.Duration
	m := cost{}
	for _, r := range runs {
		wall, cpu, m.RSS = append(wall, r.Wall), append(cpu, r.CPU), max(m.RSS, r.RSS)
	}
	m.Wall, m.CPU = median(wall), median(cpu)
	return m
}
