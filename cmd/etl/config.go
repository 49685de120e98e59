package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"etl/internal/config"
)

func (a *app) config() *cobra.Command {
	var (
		p     places
		e     engine
		q     session // of which the cache and the guard are settings
		other second
		night nightly // of which the clock and the addresses are settings
		check bool
	)
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show each setting, its value, and where it came from; --check tries what it needs",
		Long: `config shows the effective settings:
flag > environment > etl.yaml > wrangler file > default.
Each setting is a flag; its environment variable is ETL_ and its name in capitals
(ETL_STORE), and its key in etl.yaml is its name:

  source: d1://11111111-2222-3333-4444-555555555555
  store: r2://archive/history
  memory: 1GiB

For D1 and R2 two secrets are enough: CLOUDFLARE_ACCOUNT_ID and
CLOUDFLARE_API_TOKEN. Secrets are never flags, and are not shown.

A wrangler file (--wrangler wrangler.jsonc, --env production) gives source, store
and account as the bindings of a Worker name them.

--check tries each thing that archiving does, and says what is missing and how to
grant it. It writes one object, _checks/etl-permission-check, which stays: etl
deletes nothing. Exit 1: something is missing. 5: it may pass, try again.`,
		Example: `  etl config
  ETL_STORE=file:archive etl config --json
  etl config --check --wrangler wrangler.jsonc --env production`,
	}
	p.addSource(cmd)
	p.addStore(cmd)
	p.addNoState(cmd)
	other.add(cmd, &p, "replica", "a copy of the cold tier: `URL`, that replicate writes and repair reads")
	e.add(cmd)
	night.notices.add(&p)
	night.addClock(cmd)
	q.cacheFlags.add(cmd)
	q.addLimits(cmd)
	cmd.Flags().BoolVar(&check, "check", false, "try each permission that is needed, over the network")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := p.resolve(a, cmd); err != nil {
			return err
		}
		if check {
			r := p.check(cmd.Context())
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			a.code = r.exitCode()
			return a.print(r, func(w io.Writer) { printChecks(w, r) })
		}
		values := p.settings.Shown(&a.secrets)
		return a.print(map[string][]config.Value{"settings": values}, func(w io.Writer) { printSettings(w, values) })
	}
	return cmd
}

func printSettings(w io.Writer, values []config.Value) {
	t := newTable("setting", "value", "from", "environment")
	for _, v := range values {
		t.row(v.Name, whole(v.Value), whole(v.Origin), whole(strings.Join(v.Variables, ", ")))
	}
	t.print(w)
	for _, v := range values {
		if v.Problem != nil {
			fmt.Fprintf(w, "\nno %s: %s\n", v.Name, printableLine(v.Problem.Error()))
		}
	}
}
