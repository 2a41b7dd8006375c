package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kilonova/internal/app"
	"kilonova/internal/config"
)

// settings are the flags that every command shares.
type settings struct {
	file, stateDir, listen, driver, tlsCert, tlsKey string
	fakeHosts                                       int
	set                                             []string
	format                                          form
}

func (s *settings) load() (*config.Config, error) {
	flags := map[string]string{}
	for key, v := range map[string]string{"DEFAULT.state_dir": s.stateDir, "api.listen": s.listen, "compute.driver": s.driver, "api.tls_cert": s.tlsCert, "api.tls_key": s.tlsKey} {
		if v != "" {
			flags[key] = v
		}
	}
	if s.fakeHosts > 0 {
		flags["compute.fake_hosts"] = fmt.Sprint(s.fakeHosts)
	}
	for _, kv := range s.set {
		key, v, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, fmt.Errorf("--set %s: want section.option=value", kv)
		}
		flags[key] = v
	}
	return config.Load(s.file, os.Environ(), flags)
}

func root() *cobra.Command {
	s := &settings{}
	cmd := &cobra.Command{
		Use:           "kilonova",
		Short:         "A private cloud in one program: OpenStack Compute with identity, images, networks and placement",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Example: `  # a test cloud in a second: no root, no hypervisor
  kilonova up --state-dir /var/tmp/cloud --compute-driver fake

  # use it
  export OS_CLIENT_CONFIG_FILE=/var/tmp/cloud/clouds.yaml OS_CLOUD=demo
  openstack server list

  # why is this server in ERROR?
  kilonova explain server 6c0f… --state-dir /var/tmp/cloud`,
	}
	f := cmd.PersistentFlags()
	f.StringVar(&s.file, "config", "", "configuration file")
	f.StringVar(&s.stateDir, "state-dir", "", "directory of the cloud's state (default ./state)")
	f.StringArrayVar(&s.set, "set", nil, "set one option: section.option=value (repeatable)")
	cmd.AddCommand(upCommand(s), runCommand(s), configCommand(s), operationCommand(s), explainCommand(s), hostCommand(s), doctorCommand(s), healCommand(s), keyCommand(s))
	for _, r := range app.AllRoles() {
		cmd.AddCommand(roleCommand(s, r))
	}
	return cmd
}

// group is a command that only holds others. Alone it explains itself; a part that it has not is refused.
func group(use, short, example string, parts ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Example: example, Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(parts...)
	return cmd
}

func serverFlags(cmd *cobra.Command, s *settings) {
	f := cmd.Flags()
	f.StringVar(&s.listen, "listen", "", "HOST:PORT of the REST services (default 127.0.0.1:8774)")
	f.StringVar(&s.driver, "compute-driver", "", "libvirt or fake (default libvirt)")
	f.IntVar(&s.fakeHosts, "fake-hosts", 0, "hosts that the fake driver plays (default 1)")
	f.StringVar(&s.tlsCert, "tls-cert", "", "certificate file: the services speak HTTPS")
	f.StringVar(&s.tlsKey, "tls-key", "", "key file of the certificate")
	_ = cmd.RegisterFlagCompletionFunc("compute-driver", cobra.FixedCompletions([]string{"libvirt", "fake"}, cobra.ShellCompDirectiveNoFileComp))
}

func upCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run every role in this process until it is told to stop",
		Long: `Run every role in this process: identity, image, network, placement, compute API, scheduler, conductor, an agent for this host, console proxy and metadata.

When it can serve it prints one line that begins "kilonova is ready" and has written clouds.yaml (clouds admin and demo) and openrc into the state directory.
SIGTERM or Ctrl-C ends it; guests run on.`,
		Example: `  kilonova up --compute-driver fake                       # no root needed
  kilonova up --state-dir /var/lib/kilonova                # QEMU or KVM through libvirt; root for bridges, taps and libvirtd
  kilonova up --tls-cert cloud.pem --tls-key cloud.key --listen 0.0.0.0:8774`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), s, app.AllRoles()) },
	}
	serverFlags(cmd, s)
	return cmd
}

func runCommand(s *settings) *cobra.Command {
	var names []string
	for _, r := range app.AllRoles() {
		names = append(names, string(r))
	}
	cmd := &cobra.Command{
		Use:       "run ROLE…",
		Short:     "Run some roles in this process",
		Example:   "  kilonova run identity image network placement --config /etc/kilonova.conf",
		ValidArgs: names,
		Args:      cobra.MatchAll(cobra.MinimumNArgs(1), cobra.OnlyValidArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			var roles []app.Role
			for _, a := range args {
				roles = append(roles, app.Role(a))
			}
			return serve(cmd.Context(), s, roles)
		},
	}
	serverFlags(cmd, s)
	return cmd
}

// purpose says what a role is, with OpenStack's name for it where that differs.
func purpose(r app.Role) string {
	switch r {
	case app.Identity:
		return "projects, users, tokens and the catalog (Keystone)"
	case app.Image:
		return "the image service (Glance)"
	case app.Network:
		return "the network service (Neutron)"
	case app.Placement:
		return "what hosts have and who holds it"
	case app.ComputeAPI:
		return "the compute API (nova-api)"
	case app.Scheduler:
		return "ranks hosts for conductors (nova-scheduler)"
	case app.Conductor:
		return "takes operations to their end (nova-conductor)"
	case app.Agent:
		return "this host's agent (nova-compute)"
	case app.Console:
		return "the proxy to guests' screens and serial lines (nova-novncproxy and its siblings)"
	case app.Metadata:
		return "the metadata service of guests"
	}
	return "the role " + string(r)
}

func roleCommand(s *settings, r app.Role) *cobra.Command {
	cmd := &cobra.Command{
		Use:     string(r),
		Short:   "Run alone: " + purpose(r),
		Example: "  kilonova " + string(r) + " --config /etc/kilonova.conf",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), s, []app.Role{r}) },
	}
	serverFlags(cmd, s)
	return cmd
}

// serve runs roles until ctx ends or one of them does.
func serve(ctx context.Context, s *settings, roles []app.Role) error {
	began := time.Now()
	cfg, err := s.load()
	if err != nil {
		return err
	}
	if err := logTo(cfg); err != nil {
		return err
	}
	a, err := app.Start(ctx, cfg, roles...)
	if err != nil {
		return err
	}
	fmt.Printf("kilonova is ready: %s after %d ms, state in %s\n", a.URL(), time.Since(began).Milliseconds(), cfg.Default.StateDir)
	select {
	case <-ctx.Done():
		slog.Info("stopping")
	case err = <-a.Failed():
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return errors.Join(err, a.Stop(stopCtx))
}

func logTo(cfg *config.Config) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Default.LogLevel)); err != nil {
		return fmt.Errorf("log_level %q: want debug, info, warn or error", cfg.Default.LogLevel)
	}
	o := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(os.Stderr, o)
	if cfg.Default.LogFormat == "json" {
		h = slog.NewJSONHandler(os.Stderr, o)
	}
	slog.SetDefault(slog.New(h))
	return nil
}
