package main

import "github.com/spf13/cobra"

func (a *app) views() *cobra.Command { return &cobra.Command{Use: "views"} }
