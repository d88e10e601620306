output "rules" {
  description = "The EventBridge rule of each job."
  value       = { for job, rule in aws_cloudwatch_event_rule.job : job => rule.name }
}

output "task_definitions" {
  description = "The task definition, with its revision, that each rule starts."
  value       = { for job, definition in aws_ecs_task_definition.job : job => definition.arn }
}

output "log_groups" {
  description = "The log group of each job."
  value       = { for job, group in aws_cloudwatch_log_group.job : job => group.name }
}

output "roles" {
  description = "The roles that were made, for a review of what they may do."
  value = {
    task      = { for job, role in aws_iam_role.task : job => role.arn }
    execution = aws_iam_role.execution.arn
    events    = aws_iam_role.events.arn
  }
}
