package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"etl/internal/source"
)

func (a *app) migrate() *cobra.Command {
	var (
		p      places
		dryRun bool
	)
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Create or update the tables of the source: samples, points, and the ledger",
		Long: `migrate applies the migrations that the database lacks, each atomically, and
records them in d1_migrations as wrangler does, so that either tool may apply
them. A SQLite file that does not exist is created.`,
		Example: `  etl migrate --source sqlite:d1.sqlite
  etl migrate --dry-run`,
	}
	p.addSource(cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "list what would be applied and do nothing")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := p.resolve(a, cmd); err != nil {
			return err
		}
		src, err := p.openSource(1, true)
		if err != nil {
			return err
		}
		defer src.Close()
		var m source.Migrator = src
		do, verb := m.Migrate, "applied"
		if dryRun {
			do, verb = m.Pending, "would apply"
		}
		names, err := do(cmd.Context())
		if err != nil {
			return err
		}
		if names == nil {
			names = []string{}
		}
		return a.print(map[string]any{"source": p.source, "dry_run": dryRun, "migrations": names}, func(w io.Writer) {
			for _, n := range names {
				fmt.Fprintf(w, "%s %s\n", verb, n)
			}
			if len(names) == 0 {
				fmt.Fprintf(w, "%s is up to date\n", p.source)
			}
		})
	}
	return cmd
}
