package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"etl/internal/fault"
	"etl/internal/lake"
)

// cacheFlags say where local copies of month files are kept, and how many.
type cacheFlags struct {
	cacheDir  string
	cacheSize size
}

func (c *cacheFlags) add(cmd *cobra.Command) {
	c.cacheSize = 10 << 30
	f := cmd.Flags()
	f.StringVar(&c.cacheDir, "cache", "", "`DIR` of local copies of month files (default etl in the user's cache folder)")
	f.Var(&c.cacheSize, "cache-size", "what the copies may take; the least recently used ones go first")
}

func (c *cacheFlags) openCache(a *app) (*lake.Cache, error) {
	dir, err := c.folder(a)
	if err != nil {
		return nil, err
	}
	return lake.OpenCache(dir, int64(c.cacheSize))
}

// folder is where the cache is.
func (c *cacheFlags) folder(a *app) (string, error) {
	if c.cacheDir != "" {
		return c.cacheDir, nil
	}
	base, err := userDir(a.getenv, "XDG_CACHE_HOME", ".cache", os.UserCacheDir)
	if err != nil {
		return "", fault.Hint(fault.Errorf(fault.Usage, "no folder for the cache: %w", err), "give --cache DIR or set ETL_CACHE")
	}
	return filepath.Join(base, "etl"), nil
}

// userDir is a folder of the user as the environment of the app has it: that of
// the variable, else the one below the home folder, else what the system says.
func userDir(getenv func(string) string, variable, below string, system func() (string, error)) (string, error) {
	if dir := getenv(variable); filepath.IsAbs(dir) {
		return dir, nil
	}
	if dir, err := system(); err == nil && getenv("HOME") == os.Getenv("HOME") {
		return dir, nil
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, below), nil
	}
	return system()
}

func (a *app) cache() *cobra.Command {
	var (
		p     places
		c     cacheFlags
		clear bool
	)
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Show the local copies of month files that queries have made; --clear removes them",
		Long: `cache shows what query and shell keep on this machine: month files by their hash,
verified when they came, and parsed manifests. Nothing in it is needed: what is
removed is fetched again. Files that a running query uses stay until it has ended.`,
		Example: `  etl cache
  etl cache --clear
  etl cache --cache-size 2GiB        # trims it to that size`,
	}
	p.addCommon(cmd)
	c.add(cmd)
	cmd.Flags().BoolVar(&clear, "clear", false, "remove what is in it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := p.resolve(a, cmd); err != nil {
			return err
		}
		// Looking makes no folder, least of all one whose name is mistyped.
		dir, err := c.folder(a)
		if err != nil {
			return err
		}
		if !lake.IsCache(dir) {
			return a.print(lake.CacheUsage{Limit: int64(c.cacheSize)}, func(w io.Writer) { fmt.Fprintf(w, "there is no cache in %s\n", printableLine(dir)) })
		}
		cache, err := c.openCache(a)
		if err != nil {
			return err
		}
		use := cache.Usage
		if clear {
			use = cache.Clear
		}
		u, err := use()
		if err != nil {
			return err
		}
		return a.print(u, func(w io.Writer) { printCache(w, u, clear) })
	}
	return cmd
}

func printCache(w io.Writer, u lake.CacheUsage, cleared bool) {
	text := fmt.Sprintf("%s month files, %s that lie in a folder store, %s manifests: %s", comma(int64(u.Files)), comma(int64(u.Links)), comma(int64(u.Manifests)), humanize.IBytes(uint64(u.Bytes)))
	if cleared {
		fmt.Fprintf(w, "removed: %s\n", text)
		return
	}
	fmt.Fprintf(w, "%s of at most %s\n", text, humanize.IBytes(uint64(u.Limit)))
}
