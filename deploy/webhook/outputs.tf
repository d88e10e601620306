output "url" {
  description = "Where requests go: …pagerduty, …action, …events and …sns are appended to it."
  value       = aws_lambda_function_url.this.function_url
}

output "function" {
  description = "The function's name."
  value       = aws_lambda_function.this.function_name
}

output "queue" {
  description = "What waits to be triaged."
  value       = aws_sqs_queue.this.url
}

output "dead_letters" {
  description = "What was not triaged, however often it was tried."
  value       = aws_sqs_queue.dead_letters.url
}

output "role" {
  description = "The function's role, for a review of what it may do."
  value       = aws_iam_role.this.arn
}
