// Package cloud holds the handlers of the compute API that are about the cloud and not about one server: aggregates, availability zones,
// hosts, hypervisors, services, migrations, server groups, quotas, limits, usage and extensions. One file per noun.
package cloud
