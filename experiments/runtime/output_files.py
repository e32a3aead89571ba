"""Files that replace none of the user's: `analysis.records.output_files`, where analysis can import it as well."""

from analysis.records.output_files import LIST, LONGEST_NAME, OutputFiles, free_name, refuse_shared_names

__all__ = ["LIST", "LONGEST_NAME", "OutputFiles", "free_name", "refuse_shared_names"]
