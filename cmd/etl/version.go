package main

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"etl/internal/monthfile"
	"etl/manifests"
)

// release is set by the Makefile from the tag or commit.
var release = ""

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of etl and of the formats it writes",
		Example: "  etl version --json",
		RunE: func(*cobra.Command, []string) error {
			v := currentVersion()
			return a.print(map[string]any{
				"etl": v, "go": runtime.Version(), "month_file_format": monthfile.Version, "manifest_format": manifests.FormatVersion,
			}, func(w io.Writer) {
				fmt.Fprintf(w, "etl %s, %s; month files format %d, manifests format %d\n", v, runtime.Version(), monthfile.Version, manifests.FormatVersion)
			})
		},
	}
}

// currentVersion is the version of this program.
func currentVersion() string {
	v := release
	if info, ok := debug.ReadBuildInfo(); ok {
		v = cmp.Or(v, info.Main.Version)
	}
	return cmp.Or(v, "unknown")
}
