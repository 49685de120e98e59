package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"etl/internal/source"
)

// migration is what `etl migrate` prints.
type migration struct {
	Source     string        `json:"source"`
	DryRun     bool          `json:"dry_run"`
	Bookmark   string        `json:"bookmark,omitempty"` // of before, where the source has Time Travel
	Migrations []string      `json:"migrations"`
	Billed     *source.Usage `json:"billed,omitempty"`
}

func (a *app) migrate() *cobra.Command {
	var (
		p places
		m migration
	)
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Create or update the tables of the source: samples, points, and the ledger",
		Long: `migrate applies the migrations that the database lacks, each atomically, and
records them in d1_migrations as wrangler does, so that either tool may apply
them. A SQLite file that does not exist is created. Of a D1 database the Time
Travel bookmark is printed first: it is the way back.`,
		Example: `  etl migrate --source sqlite:d1.sqlite
  etl migrate --source d1://11111111-2222-3333-4444-555555555555
  etl migrate --wrangler wrangler.jsonc --env production --dry-run`,
	}
	p.addSource(cmd)
	cmd.Flags().BoolVar(&m.DryRun, "dry-run", false, "list what would be applied and do nothing")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := p.resolve(a, cmd); err != nil {
			return err
		}
		src, err := p.openSource(1, true)
		if err != nil {
			return err
		}
		defer src.Close()
		ctx := cmd.Context()
		m.Source = p.source
		if m.Migrations, err = src.Pending(ctx); err != nil {
			return err
		}
		verb := "would apply"
		if !m.DryRun {
			verb = "applied"
			if t, ok := src.(source.TimeTraveler); ok && len(m.Migrations) > 0 {
				if m.Bookmark, err = t.Bookmark(ctx); err != nil {
					return fmt.Errorf("nothing was changed: %w", err)
				}
				// At once, and not with the result: it is needed if what follows fails.
				fmt.Fprintf(a.stderr, "etl: to undo: wrangler d1 time-travel restore DATABASE_NAME --bookmark=%s\n", m.Bookmark)
			}
			// Also if none is pending: a table may have lost a column since.
			if m.Migrations, err = src.Migrate(ctx); err != nil {
				return err
			}
		}
		if m.Migrations == nil {
			m.Migrations = []string{}
		}
		if t, ok := src.(source.Meter); ok {
			m.Billed = new(t.Usage())
		}
		return a.print(m, func(w io.Writer) {
			for _, n := range m.Migrations {
				fmt.Fprintf(w, "%s %s\n", verb, n)
			}
			if len(m.Migrations) == 0 {
				fmt.Fprintf(w, "%s is up to date\n", p.source)
			}
			printBilled(w, m.Billed)
		})
	}
	return cmd
}
