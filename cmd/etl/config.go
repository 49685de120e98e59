package main

import (
	"io"

	"github.com/spf13/cobra"

	"etl/internal/config"
)

func (a *app) config() *cobra.Command {
	var (
		p places
		e engine
	)
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show each setting, its value, and where it came from",
		Long: `config shows the effective settings: flag > environment > etl.yaml > default.
Each setting is a flag; its environment variable is ETL_ and its name in capitals
(ETL_STORE), and its key in etl.yaml is its name:

  source: sqlite:d1.sqlite
  store: file:archive
  memory: 1GiB`,
		Example: `  etl config
  ETL_STORE=file:archive etl config --json`,
	}
	p.addSource(cmd)
	p.addStore(cmd)
	p.addNoState(cmd)
	e.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := p.resolve(a, cmd); err != nil {
			return err
		}
		return a.print(map[string][]config.Setting{"settings": p.effective}, func(w io.Writer) {
			t := newTable("setting", "value", "from", "environment")
			for _, s := range p.effective {
				t.row(s.Name, s.Value, s.Origin, config.EnvName(s.Name))
			}
			t.print(w)
		})
	}
	return cmd
}
