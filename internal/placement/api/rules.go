package api

import "kilonova/internal/policy"

const (
	ruleClasses        = "placement:resource_classes:"
	ruleProviders      = "placement:resource_providers:"
	ruleInventories    = "placement:resource_providers:inventories:"
	ruleAggregates     = "placement:resource_providers:aggregates:"
	ruleProviderTraits = "placement:resource_providers:traits:"
	ruleTraits         = "placement:traits:"
	ruleAllocations    = "placement:allocations:"
	ruleCandidates     = "placement:allocation_candidates:"
	ruleUsages         = "placement:usages"
	ruleReshape        = "placement:reshaper:reshape"
)

// Rules are the defaults: admin or service for everything, the reshaper for services, and a project's usages also for its readers; tokens of the
// system or of a domain pass none.
func Rules() []policy.Rule {
	const adminOrService = "rule:admin_or_service_api"
	rules := []policy.Rule{
		{Name: "admin_or_service_api", Check: "role:admin or role:service", Description: "Administrators and services."},
		{Name: "service_api", Check: "role:service", Description: "Services."},
		{Name: "admin_or_project_reader_or_service_api", Check: "role:admin or role:service or (role:reader and project_id:%(project_id)s)",
			Description: "Administrators, services, and readers of the project that is asked about."},
		{Name: ruleUsages, Check: "rule:admin_or_project_reader_or_service_api", Description: "Sum what a project holds."},
		{Name: ruleReshape, Check: "rule:service_api", Description: "Move inventories and allocations between providers."},
		{Name: ruleCandidates + "list", Check: adminOrService, Description: "List allocation candidates."},
		{Name: ruleProviders + "usages", Check: adminOrService, Description: "Show a provider's usages."},
		{Name: ruleProviders + "allocations:list", Check: adminOrService, Description: "List a provider's allocations."},
		{Name: ruleAllocations + "manage", Check: adminOrService, Description: "Change the allocations of several consumers."},
	}
	for _, g := range []struct{ prefix, noun, verbs string }{
		{ruleClasses, "resource classes", "list create show update delete"}, {ruleProviders, "resource providers", "list create show update delete"},
		{ruleInventories, "a provider's inventories", "list create show update delete"}, {ruleAggregates, "a provider's aggregates", "list update"},
		{ruleProviderTraits, "a provider's traits", "list update delete"}, {ruleTraits, "traits", "list show update delete"},
		{ruleAllocations, "a consumer's allocations", "list update delete"},
	} {
		for _, verb := range fields(g.verbs) {
			rules = append(rules, policy.Rule{Name: g.prefix + verb, Check: adminOrService, Description: verb + " " + g.noun + "."})
		}
	}
	return policy.ForProjects(rules)
}
